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
#include "common/rans_tables.hpp"

namespace aicr {

class RansEncoder {
 public:
  // lanes: 8, 32, or 0 to let the size of the payload decide.
  explicit RansEncoder(int lanes = 0) : lanes_(lanes) {
    if (lanes != 0 && lanes != kNarrowLanes && lanes != kWideLanes) {
      throw std::invalid_argument("lanes must be 8, 32 or 0 (automatic), got " + std::to_string(lanes));
    }
  }

  // Appends one segment. All or nothing: after an exception the encoder is as it was before.
  void push(const int16_t* symbols, const uint8_t* index, size_t count,
            std::shared_ptr<const TableSet> tables) {
    check(symbols, index, count, *tables);
    tables->prepare_for_encoding();
    Segment segment{std::move(tables), std::vector<uint8_t>(index, index + count),
                    std::vector<uint8_t>(count)};
    for (size_t i = 0; i < count; ++i) segment.entry[i] = split(symbols[i], index[i], *segment.tables);
    crc_ = crc32c(crc_, symbols, count * sizeof(int16_t));
    segments_.push_back(std::move(segment));
  }

  // The bytes of the whole stream. May be called again, and after further pushes.
  std::vector<uint8_t> finish() const {
    if (lanes_ != kWideLanes) {
      Payload<kNarrowLanes> narrow;
      if (code(narrow, lanes_ == 0 ? kWideFromWords : SIZE_MAX)) return assemble(narrow);
    }
    Payload<kWideLanes> wide;
    code(wide, SIZE_MAX);
    return assemble(wide);
  }

 private:
  struct Segment {
    std::shared_ptr<const TableSet> tables;
    std::vector<uint8_t> index;
    std::vector<uint8_t> entry;
  };

  static void check(const int16_t* symbols, const uint8_t* index, size_t count, const TableSet& tables) {
    for (size_t i = 0; i < count; ++i) {
      if (index[i] >= tables.tables()) {
        throw std::invalid_argument("index must be below the number of tables, " +
                                    std::to_string(tables.tables()) + ", got " + std::to_string(index[i]) +
                                    " at position " + std::to_string(i));
      }
      if (symbols[i] != 0 && tables.info(index[i]).skip) {
        throw std::invalid_argument("symbols must be 0 where the table is a skip table, got " +
                                    std::to_string(symbols[i]) + " at position " + std::to_string(i));
      }
    }
  }

  // Writes the raw and escape bits of one symbol and returns the table entry that the lanes code.
  uint8_t split(int16_t symbol, uint8_t table, const TableSet& tables) {
    const TableInfo& info = tables.info(table);
    if (info.skip) return 0;
    int32_t quotient = symbol;
    if (info.shift > 0) {
      const int32_t centred = symbol + (1 << (info.shift - 1));
      quotient = centred >> info.shift;
      raw_.put(static_cast<uint32_t>(centred) & ((1u << info.shift) - 1), info.shift);
    }
    const int32_t entry = quotient - info.offset, escape = info.escape;
    if (entry >= 0 && entry < escape) return static_cast<uint8_t>(entry);
    put_escape(entry < 0 ? static_cast<uint32_t>(-1 - entry) * 2 + 1
                         : static_cast<uint32_t>(entry - escape) * 2);
    return static_cast<uint8_t>(escape);
  }

  // Exp-Golomb: as many zeros as the number has bits beyond the order, a one, the bits below its leading one.
  void put_escape(uint32_t value) {
    const uint32_t biased = value + (1u << kEscapeOrder);
    int log2 = kEscapeOrder;
    while ((biased >> log2) > 1) ++log2;
    escapes_.put(1u << (log2 - kEscapeOrder), log2 - kEscapeOrder + 1);
    escapes_.put(biased & ((1u << log2) - 1), log2);
  }

  template <int kLanes>
  struct Payload {
    std::unique_ptr<uint16_t[]> buffer;
    uint16_t* words = nullptr;  // in reading order, up to words_end
    uint16_t* words_end = nullptr;
    std::array<uint32_t, kLanes> states;
  };

  // Codes all segments, last symbol first; words are put down from the end of the buffer backwards, which
  // leaves them in reading order. Gives up, returning false, once there are max_words words.
  template <int kLanes>
  bool code(Payload<kLanes>& payload, size_t max_words) const {
    constexpr size_t kGroup = kRounds * kLanes;
    size_t symbols = 0;
    for (const Segment& segment : segments_) symbols += segment.entry.size();
    // One word per symbol at most, and one that is written but not kept.
    const size_t capacity = (max_words < symbols ? max_words + kGroup : symbols) + 1;
    payload.buffer.reset(new uint16_t[capacity]);
    payload.words = payload.words_end = payload.buffer.get() + capacity;
    payload.states.fill(kStateLow);
    for (auto segment = segments_.rbegin(); segment != segments_.rend(); ++segment) {
      const size_t count = segment->entry.size();
      for (size_t group = (count + kGroup - 1) / kGroup; group-- > 0;) {
        const size_t first = group * kGroup;
        code_group(payload, *segment, first, std::min(kGroup, count - first));
        if (static_cast<size_t>(payload.words_end - payload.words) >= max_words) return false;
      }
    }
    return true;
  }

  template <int kLanes>
  static void code_group(Payload<kLanes>& payload, const Segment& segment, size_t first, size_t count) {
    const TableSet& tables = *segment.tables;
    const uint8_t* index = segment.index.data() + first;
    const uint8_t* entry = segment.entry.data() + first;
    uint16_t* words = payload.words;
    std::array<uint32_t, kLanes> states = payload.states;
    for (int round = kRounds; round-- > 0;) {
      for (int lane = kLanes; lane-- > 0;) {
        const size_t i = static_cast<size_t>(kRounds * lane + round);
        if (i >= count || tables.info(index[i]).skip) continue;
        const EncodeEntry& e = tables.encode_entry(index[i], entry[i]);
        uint32_t state = states[lane];
        const bool full = state >= e.renormalise_from;
        words[-1] = static_cast<uint16_t>(state);
        words -= full;
        state = full ? state >> kWordBits : state;
        const uint32_t quotient =
            (static_cast<uint32_t>((static_cast<uint64_t>(state) * e.reciprocal) >> 32) >> e.shift) +
            e.plus_one;
        const uint32_t rank = e.first_rank + (state - quotient * e.frequency);
        states[lane] = (quotient << kProbabilityBits) + tables.slot_of_rank(index[i], rank);
      }
    }
    payload.words = words;
    payload.states = states;
  }

  template <int kLanes>
  std::vector<uint8_t> assemble(const Payload<kLanes>& payload) const {
    const std::vector<uint8_t> raw = raw_.bytes(), escapes = escapes_.bytes();
    const auto words = static_cast<size_t>(payload.words_end - payload.words);
    std::vector<uint8_t> out;
    out.reserve(32 + 4 * kLanes + 2 * words + raw.size() + escapes.size());
    out.push_back(kLanes);
    put_varint(out, words);
    put_varint(out, raw.size());
    put_varint(out, escapes.size());
    put_u32(out, crc_);
    for (const uint32_t state : payload.states) put_u32(out, state);
    const auto* word_bytes = reinterpret_cast<const uint8_t*>(payload.words);
    out.insert(out.end(), word_bytes, word_bytes + 2 * words);
    out.insert(out.end(), raw.begin(), raw.end());
    out.insert(out.end(), escapes.begin(), escapes.end());
    return out;
  }

  int lanes_;
  uint32_t crc_ = 0;
  std::vector<Segment> segments_;
  BitWriter raw_;
  BitWriter escapes_;
};

}  // namespace aicr
