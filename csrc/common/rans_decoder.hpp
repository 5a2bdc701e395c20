// The decoder: reads forward, stops and resumes between segments, trusts nothing it reads.
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
#include "common/rans_tables.hpp"
#include "common/stream_error.hpp"

namespace aicr {

class RansDecoder {
 public:
  // Copies the bytes. Throws StreamError if the header or the section lengths do not fit them.
  RansDecoder(const uint8_t* data, size_t size) : bytes_(data, data + size) {
    ByteReader reader(bytes_.data(), bytes_.data() + bytes_.size());
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
      states_[lane] = reader.u32();
      if (states_[lane] < kStateLow || states_[lane] >= kStateHigh) {
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
    word_ = reader.take(2 * words);
    words_left_ = words;
    raw_ = BitReader(reader.take(raw_bytes), raw_bytes);
    escapes_ = BitReader(reader.take(escape_bytes), escape_bytes);
  }

  RansDecoder(const RansDecoder&) = delete;
  RansDecoder& operator=(const RansDecoder&) = delete;

  // Decodes one segment of `count` symbols. A StreamError is final: every later call throws again.
  void pop(const uint8_t* index, size_t count, const TableSet& tables, int16_t* symbols) {
    if (failed_) throw StreamError(StreamErrorKind::kFormat, "the coded stream was found damaged before");
    for (size_t i = 0; i < count; ++i) {
      if (index[i] >= tables.tables()) {
        throw std::invalid_argument("index must be below the number of tables, " +
                                    std::to_string(tables.tables()) + ", got " + std::to_string(index[i]) +
                                    " at position " + std::to_string(i));
      }
    }
    failed_ = true;
    if (lanes_ == kWideLanes) {
      pop_lanes<kWideLanes>(index, count, tables, symbols);
    } else {
      pop_lanes<kNarrowLanes>(index, count, tables, symbols);
    }
    failed_ = false;
    crc_ = crc32c(crc_, symbols, count * sizeof(int16_t));
  }

  // To be called after the last pop. Throws StreamError unless the stream ends exactly here, as the encoder
  // left it.
  void finish() const {
    if (failed_) throw StreamError(StreamErrorKind::kFormat, "the coded stream was found damaged before");
    if (words_left_ != 0 || !raw_.at_end() || !escapes_.at_end()) {
      throw StreamError(StreamErrorKind::kTruncated, "the coded stream goes on after its last symbol");
    }
    for (int lane = 0; lane < lanes_; ++lane) {
      if (states_[lane] != kStateLow) {
        throw StreamError(StreamErrorKind::kChecksum,
                          "a lane of the coded stream does not end in its first state");
      }
    }
    if (crc_ != expected_crc_) {
      throw StreamError(StreamErrorKind::kChecksum, "the decoded symbols do not match their CRC-32C");
    }
  }

 private:
  template <int kLanes>
  void pop_lanes(const uint8_t* index, size_t count, const TableSet& tables, int16_t* symbols) {
    constexpr size_t kGroup = kRounds * kLanes;
    std::array<uint8_t, kGroup> entry;
    for (size_t first = 0; first < count; first += kGroup) {
      const size_t group = std::min(kGroup, count - first);
      // While there are words for a whole group, single reads need no check.
      if (group == kGroup && words_left_ >= kGroup) {
        decode_group<kLanes, false>(index + first, kGroup, tables, entry.data());
      } else {
        decode_group<kLanes, true>(index + first, group, tables, entry.data());
      }
      join_group(entry.data(), index + first, group, tables, symbols + first);
    }
  }

  // The lanes' part: table entries of one group. States and words only; this is what SIMD and GPU decoders
  // replace.
  template <int kLanes, bool kChecked>
  void decode_group(const uint8_t* index, size_t count, const TableSet& tables, uint8_t* entry) {
    // Copies, because a store to `entry` could otherwise be one to these members.
    const uint8_t* word = word_;
    std::array<uint32_t, kLanes> states;
    std::copy_n(states_.begin(), kLanes, states.begin());
    for (int round = 0; round < kRounds; ++round) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const size_t i = static_cast<size_t>(kRounds * lane + round);
        if (kChecked && i >= count) break;
        if (tables.info(index[i]).skip) {
          entry[i] = 0;
          continue;
        }
        const AliasTable& alias = tables.alias(index[i]);
        uint32_t state = states[lane];
        const uint32_t slot = state & (kProbabilityOne - 1);
        const uint32_t bucket = slot >> AliasTable::kBucketBits;
        const uint32_t within = slot & (AliasTable::kBucketSlots - 1);
        const uint32_t pair = alias.bucket[bucket];
        const uint32_t side = within >= (pair & 1023);
        const uint32_t part = alias.part[2 * bucket + side];
        entry[i] = static_cast<uint8_t>((pair >> (10 + 6 * side)) & (kMaxEntries - 1));
        const uint32_t rank = (within + (part >> 16)) & (kProbabilityOne - 1);
        state = (part & 0xffff) * (state >> kProbabilityBits) + rank;
        if (kChecked) {
          if (state < kStateLow) {
            if (static_cast<size_t>(word - word_) == 2 * words_left_) {
              throw StreamError(StreamErrorKind::kTruncated, "the coded stream ran out of words");
            }
            state = state << kWordBits | load_word(word);
            word += 2;
          }
        } else {
          // Without a branch: whether a word is due is as good as random.
          const uint32_t needs = state < kStateLow;
          state = state << (kWordBits * needs) | (load_word(word) & (0u - needs));
          word += 2 * needs;
        }
        states[lane] = state;
      }
    }
    std::copy_n(states.begin(), kLanes, states_.begin());
    words_left_ -= static_cast<size_t>(word - word_) / 2;
    word_ = word;
  }

  static uint32_t load_word(const uint8_t* at) {
    uint16_t word;
    std::memcpy(&word, at, sizeof(word));
    return word;
  }

  // Symbols of table entries, with the raw and escape bits that belong to them.
  void join_group(const uint8_t* entry, const uint8_t* index, size_t count, const TableSet& tables,
                  int16_t* symbols) {
    BitReader raw = raw_;
    int32_t outside = 0;
    for (size_t i = 0; i < count; ++i) {
      const TableInfo& info = tables.info(index[i]);
      int32_t quotient = info.offset + entry[i];
      if (entry[i] == info.escape) {
        const uint32_t distance = get_escape();
        const auto steps = static_cast<int32_t>(distance >> 1);
        quotient = distance & 1 ? info.offset - 1 - steps : info.offset + info.escape + steps;
      }
      const int32_t half = (1 << info.shift) >> 1;
      const int32_t symbol = quotient * (1 << info.shift) + static_cast<int32_t>(raw.get(info.shift)) - half;
      outside |= (symbol + 32768) >> 16;
      symbols[i] = static_cast<int16_t>(symbol);
    }
    raw_ = raw;
    if (outside != 0) {
      throw StreamError(StreamErrorKind::kFormat, "a symbol of the coded stream does not fit 16 bits");
    }
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

  std::vector<uint8_t> bytes_;
  int lanes_ = 0;
  uint32_t expected_crc_ = 0;
  uint32_t crc_ = 0;
  std::array<uint32_t, kWideLanes> states_{};
  const uint8_t* word_ = nullptr;  // next word; the section need not be aligned
  size_t words_left_ = 0;
  BitReader raw_;
  BitReader escapes_;
  bool failed_ = false;
};

}  // namespace aicr
