// The encoder: symbols come in decoding order, the coding itself runs backwards at the end.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/bit_io.hpp"
#include "common/byte_io.hpp"
#include "common/crc32c.hpp"
#include "common/rans_format.hpp"
#include "common/rans_kernels.hpp"
#include "common/rans_scalar.hpp"
#include "common/rans_tables.hpp"

namespace aicr {

class RansEncoder {
 public:
  // lanes: 8, 32, or 0 to let the size of the payload decide.
  explicit RansEncoder(int lanes = 0, const RansKernels& kernels = active_kernels())
      : lanes_(lanes), kernels_(kernels) {
    if (lanes != 0 && lanes != kNarrowLanes && lanes != kWideLanes) {
      throw std::invalid_argument("lanes must be 8, 32 or 0 (automatic), got " + std::to_string(lanes));
    }
  }

  // Appends one segment. All or nothing: after an exception the encoder is as it was before.
  void push(const int16_t* symbols, const uint8_t* index, size_t count,
            std::shared_ptr<const TableSet> tables) {
    tables->prepare_for_encoding();
    Segment segment{std::move(tables), count, std::unique_ptr<uint8_t[]>(new uint8_t[count]),
                    std::unique_ptr<uint8_t[]>(new uint8_t[count])};
    std::copy_n(index, count, segment.index.get());
    check_index(segment.index.get(), count, segment.tables->tables());
    const BitWriter::Mark raw = raw_.mark(), escapes = escapes_.mark();
    uint32_t crc = crc_;
    try {
      constexpr size_t kChunk = 8 * kMaxGroup;  // of the size of a cache, as in the decoder
      for (size_t first = 0; first < count; first += kChunk) {
        const size_t chunk = std::min(kChunk, count - first);
        split(symbols, segment, first, first + chunk);
        crc = crc32c(crc, symbols + first, chunk * sizeof(int16_t));
      }
      segments_.push_back(std::move(segment));
    } catch (...) {
      raw_.rewind(raw);
      escapes_.rewind(escapes);
      throw;
    }
    crc_ = crc;
  }

  // The bytes of the whole stream. May be called again, and after further pushes.
  std::vector<uint8_t> finish() const {
    if (lanes_ != kNarrowLanes) {
      const Payload wide = code(kWideLanes);
      // A lane's state grows by at most a word and shrinks by less than a bit, so the numbers of words differ
      // by less than this; all but small streams are coded once.
      constexpr size_t kSurelyWide = kWideFromWords + 2 * kWideLanes;
      if (lanes_ == kWideLanes || wide.words() >= kSurelyWide) return assemble<kWideLanes>(wide);
      const Payload narrow = code(kNarrowLanes);
      return narrow.words() < kWideFromWords ? assemble<kNarrowLanes>(narrow) : assemble<kWideLanes>(wide);
    }
    return assemble<kNarrowLanes>(code(kNarrowLanes));
  }

 private:
  struct Segment {
    std::shared_ptr<const TableSet> tables;
    size_t count;
    std::unique_ptr<uint8_t[]> index;
    std::unique_ptr<uint8_t[]> entry;
  };

  // Entries, raw bits and escapes of the symbols from first to end.
  void split(const int16_t* symbols, const Segment& segment, size_t first, size_t end) {
    const TableSet& tables = *segment.tables;
    const uint8_t* index = segment.index.get();
    uint8_t* entry = segment.entry.get();
    for (size_t i = first; i < end;) {
      if (kernels_.split != nullptr) {
        i += kernels_.split(tables, symbols + i, index + i, end - i, entry + i, raw_);
      }
      const size_t stop = kernels_.split != nullptr ? std::min(end, i + kBlock) : end;
      for (; i < stop; ++i) entry[i] = split_one(symbols[i], tables.info(index[i]), i);
    }
  }

  // Writes the raw and escape bits of one symbol and returns the table entry that the lanes code.
  uint8_t split_one(int16_t symbol, const TableInfo& info, size_t position) {
    int32_t quotient = symbol;
    if (info.shift > 0) {
      const int32_t centred = symbol + (1 << (info.shift - 1));
      quotient = centred >> info.shift;
      raw_.put(static_cast<uint32_t>(centred) & ((1u << info.shift) - 1), info.shift);
    }
    const int32_t entry = quotient - info.offset, regular = info.regular;
    if (entry >= 0 && entry < regular) return static_cast<uint8_t>(entry);
    if (info.skip) {
      throw std::invalid_argument("symbols must be 0 where the table is a skip table, got " +
                                  std::to_string(symbol) + " at position " + std::to_string(position));
    }
    put_escape(entry < 0 ? static_cast<uint32_t>(-1 - entry) * 2 + 1
                         : static_cast<uint32_t>(entry - regular) * 2);
    return kEscapeMark;
  }

  // Exp-Golomb: as many zeros as the number has bits beyond the order, a one, the bits below its leading one.
  void put_escape(uint32_t value) {
    const uint32_t biased = value + (1u << kEscapeOrder);
    int log2 = kEscapeOrder;
    while ((biased >> log2) > 1) ++log2;
    escapes_.put(1u << (log2 - kEscapeOrder), log2 - kEscapeOrder + 1);
    escapes_.put(biased & ((1u << log2) - 1), log2);
  }

  // Words in reading order, from lanes.word to the end of the buffer, and the states after the last symbol.
  struct Payload {
    std::unique_ptr<uint16_t[]> buffer;
    uint16_t* end = nullptr;
    EncodeLanes lanes;

    size_t words() const { return static_cast<size_t>(end - lanes.word); }
  };

  // Codes all segments, last symbol first; words are put down from the end of the buffer backwards, which
  // leaves them in reading order.
  Payload code(int lanes) const {
    const bool wide = lanes == kWideLanes;
    const size_t group = static_cast<size_t>(kRounds * lanes);
    size_t symbols = 0;
    for (const Segment& segment : segments_) symbols += segment.count;
    Payload payload;
    const size_t capacity = symbols + kWritePadding;  // one word per symbol at most
    payload.buffer.reset(new uint16_t[capacity]);
    payload.lanes.word = payload.end = payload.buffer.get() + capacity;
    for (int lane = 0; lane < lanes; ++lane) payload.lanes.states[lane] = last_state(crc_, lane);
    for (auto segment = segments_.rbegin(); segment != segments_.rend(); ++segment) {
      const uint8_t *index = segment->index.get(), *entry = segment->entry.get();
      const size_t groups = segment->count / group, done = groups * group;
      if (done < segment->count) {
        const auto rest =
            wide ? encode_group_scalar<kWideLanes, false> : encode_group_scalar<kNarrowLanes, false>;
        rest(*segment->tables, index + done, entry + done, segment->count - done, payload.lanes.states,
             payload.lanes.word);
      }
      (wide ? kernels_.encode_wide : kernels_.encode_narrow)(*segment->tables, index, entry, groups,
                                                             payload.lanes);
    }
    return payload;
  }

  template <int kLanes>
  std::vector<uint8_t> assemble(const Payload& payload) const {
    const std::vector<uint8_t> raw = raw_.bytes(), escapes = escapes_.bytes();
    const auto words = payload.words();
    std::vector<uint8_t> out;
    out.reserve(32 + 4 * kLanes + 2 * words + raw.size() + escapes.size());
    out.push_back(kLanes);
    put_varint(out, words);
    put_varint(out, raw.size());
    for (int lane = 0; lane < kLanes; ++lane) put_u32(out, payload.lanes.states[lane]);
    const auto* word_bytes = reinterpret_cast<const uint8_t*>(payload.lanes.word);
    out.insert(out.end(), word_bytes, word_bytes + 2 * words);
    out.insert(out.end(), raw.begin(), raw.end());
    out.insert(out.end(), escapes.begin(), escapes.end());
    return out;
  }

  int lanes_;
  const RansKernels& kernels_;
  uint32_t crc_ = 0;
  std::vector<Segment> segments_;
  BitWriter raw_;
  BitWriter escapes_;
};

}  // namespace aicr
