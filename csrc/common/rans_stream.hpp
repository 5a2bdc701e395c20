// Decoding a stream that lies in memory of others, a step at a time: what is between two steps is a struct of
// plain numbers, and trusts nothing it reads.
//
// Invariants: every lane's state is in [kStateLow, kStateHigh), whatever the stream holds, so that every
// look-up stays within its table; and which error a damaged stream ends in depends on this file only, not on
// the kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/bit_io.hpp"
#include "common/byte_io.hpp"
#include "common/crc32c.hpp"
#include "common/rans_format.hpp"
#include "common/rans_kernels.hpp"
#include "common/rans_scalar.hpp"
#include "common/rans_state.hpp"
#include "common/rans_tables.hpp"
#include "common/stream_error.hpp"

namespace aicr {

// Reads the header of the stream between the offsets begin and end. Throws StreamError.
inline StreamState open_stream(const uint8_t* data, size_t begin, size_t end) {
  StreamState state{};
  ByteReader reader(data + begin, data + end);
  state.lane_count = reader.u8();
  if (state.lane_count != kNarrowLanes && state.lane_count != kWideLanes) {
    throw StreamError(StreamFault::kLanes);
  }
  const uint64_t words = reader.varint(), raw_bytes = reader.varint();
  for (int lane = 0; lane < state.lane_count; ++lane) {
    state.lanes[lane] = reader.u32();
    if (state.lanes[lane] < kStateLow || state.lanes[lane] >= kStateHigh) {
      throw StreamError(StreamFault::kFirstState);
    }
  }
  // Each length is below 2^35, so the sum cannot overflow.
  if (2 * words + raw_bytes > reader.left()) throw StreamError(StreamFault::kSections);
  state.word = static_cast<int64_t>(end - reader.left());
  state.words_end = state.word + 2 * static_cast<int64_t>(words);
  state.raw_end = state.words_end + static_cast<int64_t>(raw_bytes);
  state.end = static_cast<int64_t>(end);
  return state;
}

class RansReader {
 public:
  // `from` is where the byte with the offset `origin` lies; kReadPadding bytes behind the end of the stream
  // must be readable.
  RansReader(const uint8_t* from, int64_t origin, StreamState& state, const RansKernels& kernels)
      : kernels_(kernels), state_(state), base_(from + (state.word - origin)) {
    std::copy_n(state.lanes, kWideLanes, lanes_.states.begin());
    lanes_.word = base_;
    lanes_.words_end = base_ + (state.words_end - state.word);
    const uint8_t* const raw_end = base_ + (state.raw_end - state.word);
    raw_ = BitReader(lanes_.words_end, static_cast<size_t>(state.raw_end - state.words_end));
    raw_.skip(static_cast<uint64_t>(state.raw_bit));
    escapes_ = BitReader(raw_end, static_cast<size_t>(state.end - state.raw_end));
    escapes_.skip(static_cast<uint64_t>(state.escape_bit));
    unchecked_.crc = state.crc;
  }

  // Decodes `count` symbols and takes the state along. Throws StreamError and leaves its fault there, or
  // std::invalid_argument for the index, and leaves the state alone.
  void pop(const uint8_t* index, size_t count, const TableSet& tables, int16_t* symbols) {
    if (state_.fault != StreamFault::kNone) throw StreamError(StreamFault::kFailedBefore);
    check_index(index, count, tables.tables());
    try {
      decode_symbols(index, count, tables, symbols);
    } catch (const StreamError& error) {
      state_.fault = error.fault();
      throw;
    }
    std::copy(lanes_.states.begin(), lanes_.states.end(), state_.lanes);
    state_.word += lanes_.word - base_;
    base_ = lanes_.word;
    state_.raw_bit = static_cast<int64_t>(raw_.position());
    state_.escape_bit = static_cast<int64_t>(escapes_.position());
    state_.crc = unchecked_.crc;
  }

  // kNone if the stream ends exactly here, as the encoder left it.
  StreamFault end() const {
    if (state_.fault != StreamFault::kNone) return state_.fault;
    if (state_.word != state_.words_end || !raw_.at_end() || !escapes_.at_end()) return StreamFault::kSurplus;
    bool same = true;
    for (int lane = 0; lane < state_.lane_count; ++lane) {
      const uint32_t last = state_.lanes[lane];
      if (last >= (lane < kChecksumLanes ? 2 * kStateLow : kStateLow + 1)) return StreamFault::kLastState;
      same = same && last == last_state(state_.crc, lane);
    }
    return same ? StreamFault::kNone : StreamFault::kSymbols;
  }

 private:
  void decode_symbols(const uint8_t* index, size_t count, const TableSet& tables, int16_t* symbols) {
    // The symbols of a chunk go into the checksum while those of the next are made.
    alignas(64) std::array<uint8_t, kChunk> entry;
    for (size_t first = 0; first < count; first += kChunk) {
      const size_t chunk = std::min(kChunk, count - first);
      if (!decode(index + first, chunk, tables, entry.data())) throw StreamError(StreamFault::kWords);
      join(entry.data(), index + first, chunk, tables, symbols + first);
      check();
      unchecked_.first = symbols + first;
      unchecked_.count = chunk;
    }
    check();
  }

  // The lanes' part: table entries. False if there were not words enough.
  bool decode(const uint8_t* index, size_t count, const TableSet& tables, uint8_t* entry) {
    const bool wide = state_.lane_count == kWideLanes;
    const size_t group = static_cast<size_t>(kRounds * state_.lane_count), groups = count / group;
    const auto whole = wide ? kernels_.decode_wide : kernels_.decode_narrow;
    if (!whole(tables, index, groups, lanes_, entry)) return false;
    if (const size_t done = groups * group; done < count) {
      const auto rest =
          wide ? decode_group_scalar<kWideLanes, false> : decode_group_scalar<kNarrowLanes, false>;
      rest(tables.decode_table(), index + done, count - done, lanes_.states, lanes_.word, entry + done);
    }
    return lanes_.word <= lanes_.words_end;
  }

  // Symbols of table entries, with the raw and escape bits that belong to them.
  void join(const uint8_t* entry, const uint8_t* index, size_t count, const TableSet& tables,
            int16_t* symbols) {
    for (size_t done = 0; done < count;) {
      done +=
          kernels_.join(tables, index + done, entry + done, count - done, raw_, symbols + done, unchecked_);
      const size_t end = std::min(count, done + kBlock);
      BitReader raw = raw_;
      for (; done < end; ++done) symbols[done] = join_one(entry[done], tables.info(index[done]), raw);
      raw_ = raw;
    }
  }

  // Takes what is left of the symbols into the checksum.
  void check() {
    unchecked_.crc = crc32c(unchecked_.crc, unchecked_.first, unchecked_.count * sizeof(int16_t));
    unchecked_.count = 0;
  }

  int16_t join_one(uint8_t entry, const TableInfo& info, BitReader& raw) {
    int32_t quotient = info.offset + entry;
    if (entry == kEscapeMark) {
      const uint32_t distance = get_escape();
      const auto steps = static_cast<int32_t>(distance >> 1);
      quotient = distance & 1 ? info.offset - 1 - steps : info.offset + info.regular + steps;
    }
    const int32_t half = (1 << info.shift) >> 1;
    const int32_t symbol = quotient * (1 << info.shift) + static_cast<int32_t>(raw.get(info.shift)) - half;
    if (symbol != static_cast<int16_t>(symbol)) {
      throw StreamError(StreamFault::kSymbol);
    }
    return static_cast<int16_t>(symbol);
  }

  uint32_t get_escape() {
    int zeros = 0;
    while (escapes_.get(1) == 0) {
      if (++zeros > kMaxEscapePrefix) throw StreamError(StreamFault::kEscape);
    }
    const int bits = zeros + kEscapeOrder;
    return (1u << bits) + escapes_.get(bits) - (1u << kEscapeOrder);
  }

  const RansKernels& kernels_;
  StreamState& state_;
  const uint8_t* base_;  // where the next word lies according to state_
  DecodeLanes lanes_;
  Unchecked unchecked_;
  BitReader raw_;
  BitReader escapes_;
};

// One step of a stream in memory of `size` bytes of which none behind the end are read. A fault is left in
// the state; the symbols of this step and of all later ones are then 0. Throws std::invalid_argument for the
// index.
inline void step_stream(const uint8_t* data, size_t size, StreamState& state, const uint8_t* index,
                        size_t count, const TableSet& tables, int16_t* symbols,
                        const RansKernels& kernels = active_kernels()) {
  check_index(index, count, tables.tables());
  try {
    if (state.fault != StreamFault::kNone) throw StreamError(state.fault);
    if (static_cast<size_t>(state.end) + kReadPadding <= size) {
      RansReader(data, 0, state, kernels).pop(index, count, tables, symbols);
      return;
    }
    std::vector<uint8_t> rest;
    rest.reserve(static_cast<size_t>(state.end - state.word) + kReadPadding);
    rest.assign(data + state.word, data + state.end);
    rest.resize(rest.size() + kReadPadding);
    RansReader(rest.data(), state.word, state, kernels).pop(index, count, tables, symbols);
  } catch (const StreamError&) {
    std::fill_n(symbols, count, int16_t{0});
  }
}

// What is wrong with a stream after its last step.
inline StreamFault end_stream(const uint8_t* data, StreamState state) {
  if (state.fault != StreamFault::kNone) return state.fault;
  return RansReader(data, 0, state, active_kernels()).end();
}

}  // namespace aicr
