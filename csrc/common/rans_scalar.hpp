// The coder's loops without any vector instruction: what runs everywhere, what other kernels leave over, and
// what they must agree with.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "common/rans_format.hpp"
#include "common/rans_kernels.hpp"
#include "common/rans_tables.hpp"

namespace aicr {

// Throws std::invalid_argument if an index names no table.
inline void check_index(const uint8_t* index, size_t count, size_t tables) {
  if (tables == kMaxTables) return;
  uint8_t largest = 0;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, index[i]);
  if (largest < tables) return;
  const auto* wrong = std::find_if(index, index + count, [&](uint8_t t) { return t >= tables; });
  throw std::invalid_argument("index must be below the number of tables, " + std::to_string(tables) +
                              ", got " + std::to_string(*wrong) + " at position " +
                              std::to_string(wrong - index));
}

// One group, of which the last symbols may be missing. Reads words without a look at their end: at most one
// per symbol. What lies there in a stream that is too short is not used, because the caller then stops.
template <int kLanes, bool kWhole>
inline void decode_group_scalar(const uint64_t* tables, const uint8_t* index, size_t count,
                                std::array<uint32_t, kWideLanes>& states, const uint8_t*& words,
                                uint8_t* entry) {
  const uint8_t* word = words;
  for (int round = 0; round < kRounds; ++round) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const size_t i = static_cast<size_t>(kRounds * lane + round);
      if (!kWhole && i >= count) break;
      uint32_t state = states[lane];
      const uint64_t bucket = tables[index[i] * kBuckets + ((state >> kBucketBits) & (kBuckets - 1))];
      const uint32_t rest = ~state & (kBucketSlots - 1), reach = bucket & (kBucketSlots - 1);
      // Whether it is the second entry, and below whether a word is due, is as good as random: compilers make
      // branches of conditions, so these are masks of all ones or none.
      const auto second = ~static_cast<uint32_t>(static_cast<int32_t>(reach - rest) >> 31);
      const uint64_t fields = bucket >> (kSecondEntry & second);
      const uint32_t frequency = (fields >> kFrequencyAt) & kFrequencyMask;
      entry[i] = static_cast<uint8_t>((fields >> kNumberAt) & (kMaxEntries - 1));
      const uint32_t second_bias = static_cast<uint32_t>(bucket >> kSecondBiasAt) - kProbabilityOne;
      const uint32_t bias = reach + ((second_bias - reach) & second);
      state = frequency * ((state >> kProbabilityBits) + 1) + bias - rest;
      uint16_t next;
      std::memcpy(&next, word, sizeof(next));
      const auto due = static_cast<uint32_t>(static_cast<int32_t>(state - kStateLow) >> 31);
      states[lane] = state << (kWordBits & due) | (next & due);
      word += 2 & due;
    }
  }
  words = word;
}

template <int kLanes>
bool decode_scalar(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                   uint8_t* entry) {
  constexpr size_t kGroup = kRounds * kLanes;
  // Copies, because a store to `entry` could otherwise be one to these.
  std::array<uint32_t, kWideLanes> states = lanes.states;
  const uint8_t* word = lanes.word;
  for (; groups > 0 && word <= lanes.words_end; --groups, index += kGroup, entry += kGroup) {
    decode_group_scalar<kLanes, true>(tables.decode_table(), index, kGroup, states, word, entry);
  }
  lanes.states = states;
  lanes.word = word;
  return word <= lanes.words_end;
}

// Raw bits are read as if they were there, and counted once per block: eight symbols have less than 57.
// Leaves the checksum alone.
inline size_t join_scalar(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t count,
                          BitReader& raw, int16_t* symbols, Unchecked&) {
  if (!tables.is_compact()) return 0;
  constexpr size_t kWindow = 8;
  size_t done = 0;
  for (; done + kBlock <= count; done += kBlock) {
    uint64_t position = raw.position();
    uint32_t escape = 0;
    for (size_t first = done; first < done + kBlock; first += kWindow) {
      uint64_t bits = raw.window(position);
      for (size_t i = first; i < first + kWindow; ++i) {
        const JoinInfo info = tables.join_info(index[i]);
        const auto number = static_cast<uint32_t>(bits) & info.raw_mask;
        symbols[i] = static_cast<int16_t>((uint32_t{entry[i]} << info.shift) + number + info.base);
        bits >>= info.shift;
        position += info.shift;
        escape |= entry[i] + 1u;
      }
    }
    const uint64_t taken = position - raw.position();
    if ((escape & (kEscapeMark + 1)) != 0 || !raw.has(taken)) break;
    raw.skip(taken);
  }
  return done;
}

// decode_group_scalar backwards. One word in front of the last one put down may be overwritten.
template <int kLanes, bool kWhole>
inline void encode_group_scalar(const TableSet& tables, const uint8_t* index, const uint8_t* entry,
                                size_t count, std::array<uint32_t, kWideLanes>& states, uint16_t*& words) {
  const EncodeEntry* entries = tables.encode_tables().entries();
  const Cell* cells = tables.encode_tables().cells();
  uint16_t* word = words;
  for (int round = kRounds; round-- > 0;) {
    for (int lane = kLanes; lane-- > 0;) {
      const size_t i = static_cast<size_t>(kRounds * lane + round);
      if (!kWhole && i >= count) continue;
      const EncodeEntry& e = entries[static_cast<size_t>(index[i]) * kMaxEntries + entry[i]];
      uint32_t state = states[lane];
      // From frequency << 17 on, a word goes out first; the difference of the two is taken below 2^31.
      const uint32_t limit = (uint32_t{e.frequency} << 17) - 1;
      const auto full = static_cast<uint32_t>(static_cast<int32_t>(limit - state) >> 31);
      word[-1] = static_cast<uint16_t>(state);
      word -= 1 & full;
      state >>= kWordBits & full;
      const auto quotient = static_cast<uint32_t>((uint64_t{state} * e.reciprocal) >> (31 + e.shift));
      const uint32_t rank = state - quotient * e.frequency;
      const Cell cell = cells[e.first_cell + std::min<uint32_t>(rank >> e.cell_shift, e.last_cell)];
      // Which of the two runs is as good as random, too.
      const auto last = static_cast<uint32_t>(cell) >> 16;
      const auto second = static_cast<uint32_t>(static_cast<int32_t>(last - rank) >> 31);
      const auto delta = static_cast<uint32_t>(cell >> (32 & second));
      states[lane] = quotient << kProbabilityBits | ((rank + delta) & (kProbabilityOne - 1));
    }
  }
  words = word;
}

template <int kLanes>
void encode_scalar(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t groups,
                   EncodeLanes& lanes) {
  constexpr size_t kGroup = kRounds * kLanes;
  std::array<uint32_t, kWideLanes> states = lanes.states;
  uint16_t* word = lanes.word;
  while (groups-- > 0) {
    encode_group_scalar<kLanes, true>(tables, index + groups * kGroup, entry + groups * kGroup, kGroup,
                                      states, word);
  }
  lanes.states = states;
  lanes.word = word;
}

}  // namespace aicr
