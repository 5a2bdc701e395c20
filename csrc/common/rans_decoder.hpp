// The decoder: reads forward, stops and resumes between segments, trusts nothing it reads.
//
// Invariants: every state is in [kStateLow, kStateHigh), whatever the stream holds, so that every look-up
// stays within its table; kReadPadding bytes lie behind the stream, so that a group may run past the words
// before that is noticed; and which error a damaged stream ends in depends on this file only, not on the
// kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/bit_io.hpp"
#include "common/byte_io.hpp"
#include "common/crc32c.hpp"
#include "common/rans_format.hpp"
#include "common/rans_kernels.hpp"
#include "common/rans_scalar.hpp"
#include "common/rans_tables.hpp"
#include "common/stream_error.hpp"

namespace aicr {

class RansDecoder {
 public:
  // Copies the bytes. Throws StreamError if the header or the section lengths do not fit them.
  RansDecoder(const uint8_t* data, size_t size, const RansKernels& kernels = active_kernels())
      : kernels_(kernels) {
    bytes_.reserve(size + kReadPadding);
    bytes_.assign(data, data + size);
    bytes_.resize(size + kReadPadding);
    ByteReader reader(bytes_.data(), bytes_.data() + size);
    lanes_ = reader.u8();
    if (lanes_ != kNarrowLanes && lanes_ != kWideLanes) {
      throw StreamError(StreamErrorKind::kFormat,
                        "the coded stream must have 8 or 32 lanes, this one says " + std::to_string(lanes_));
    }
    const auto words = static_cast<size_t>(reader.varint());
    const auto raw_bytes = static_cast<size_t>(reader.varint());
    const auto escape_bytes = static_cast<size_t>(reader.varint());
    expected_crc_ = reader.u32();
    for (int lane = 0; lane < lanes_; ++lane) {
      lane_state_.states[lane] = reader.u32();
      if (lane_state_.states[lane] < kStateLow || lane_state_.states[lane] >= kStateHigh) {
        throw StreamError(StreamErrorKind::kFormat,
                          "a lane of the coded stream starts outside the state range");
      }
    }
    // Each length is below 2^35, so the sum cannot overflow.
    if (2 * words + raw_bytes + escape_bytes != reader.left()) {
      throw StreamError(StreamErrorKind::kTruncated,
                        "the sections of the coded stream take " +
                            std::to_string(2 * words + raw_bytes + escape_bytes) + " bytes, there are " +
                            std::to_string(reader.left()));
    }
    lane_state_.word = reader.take(2 * words);
    lane_state_.words_end = lane_state_.word + 2 * words;
    raw_ = BitReader(reader.take(raw_bytes), raw_bytes);
    escapes_ = BitReader(reader.take(escape_bytes), escape_bytes);
  }

  RansDecoder(const RansDecoder&) = delete;
  RansDecoder& operator=(const RansDecoder&) = delete;

  // Decodes one segment of `count` symbols. A StreamError is final: every later call throws again.
  void pop(const uint8_t* index, size_t count, const TableSet& tables, int16_t* symbols) {
    if (failed_) throw StreamError(StreamErrorKind::kFormat, "the coded stream was found damaged before");
    check_index(index, count, tables.tables());
    failed_ = true;
    // The symbols of a chunk go into the checksum while those of the next are made.
    alignas(64) std::array<uint8_t, kChunk> entry;
    for (size_t first = 0; first < count; first += kChunk) {
      const size_t chunk = std::min(kChunk, count - first);
      if (!decode(index + first, chunk, tables, entry.data())) {
        throw StreamError(StreamErrorKind::kTruncated, "the coded stream ran out of words");
      }
      join(entry.data(), index + first, chunk, tables, symbols + first);
      check();
      unchecked_.first = symbols + first;
      unchecked_.count = chunk;
    }
    check();
    failed_ = false;
  }

  // To be called after the last pop. Throws StreamError unless the stream ends exactly here, as the encoder
  // left it.
  void finish() const {
    if (failed_) throw StreamError(StreamErrorKind::kFormat, "the coded stream was found damaged before");
    if (lane_state_.word != lane_state_.words_end || !raw_.at_end() || !escapes_.at_end()) {
      throw StreamError(StreamErrorKind::kTruncated, "the coded stream goes on after its last symbol");
    }
    for (int lane = 0; lane < lanes_; ++lane) {
      if (lane_state_.states[lane] != kStateLow) {
        throw StreamError(StreamErrorKind::kChecksum,
                          "a lane of the coded stream does not end in its first state");
      }
    }
    if (unchecked_.crc != expected_crc_) {
      throw StreamError(StreamErrorKind::kChecksum, "the decoded symbols do not match their CRC-32C");
    }
  }

 private:
  // The lanes' part: table entries. False if there were not words enough.
  bool decode(const uint8_t* index, size_t count, const TableSet& tables, uint8_t* entry) {
    const bool wide = lanes_ == kWideLanes;
    const size_t group = static_cast<size_t>(kRounds * lanes_), groups = count / group;
    const auto whole = wide ? kernels_.decode_wide : kernels_.decode_narrow;
    if (!whole(tables, index, groups, lane_state_, entry)) return false;
    if (const size_t done = groups * group; done < count) {
      const auto rest =
          wide ? decode_group_scalar<kWideLanes, false> : decode_group_scalar<kNarrowLanes, false>;
      rest(tables.decode_table(), index + done, count - done, lane_state_.states, lane_state_.word,
           entry + done);
    }
    return lane_state_.word <= lane_state_.words_end;
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
      throw StreamError(StreamErrorKind::kFormat, "a symbol of the coded stream does not fit 16 bits");
    }
    return static_cast<int16_t>(symbol);
  }

  uint32_t get_escape() {
    int zeros = 0;
    while (escapes_.get(1) == 0) {
      if (++zeros > kMaxEscapePrefix) {
        throw StreamError(StreamErrorKind::kFormat,
                          "an escape of the coded stream is longer than any can be");
      }
    }
    const int bits = zeros + kEscapeOrder;
    return (1u << bits) + escapes_.get(bits) - (1u << kEscapeOrder);
  }

  const RansKernels& kernels_;
  std::vector<uint8_t> bytes_;
  int lanes_ = 0;
  uint32_t expected_crc_ = 0;
  DecodeLanes lane_state_;
  Unchecked unchecked_;
  BitReader raw_;
  BitReader escapes_;
  bool failed_ = false;
};

}  // namespace aicr
