// A set of frequency tables, and what is derived from them for decoding and for encoding.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/rans_encode_tables.hpp"
#include "common/rans_format.hpp"

namespace aicr {

// A decoder's table: the alias table of one frequency table (Walker's method). The 2^14 slots fall into 64
// buckets of 256, and no bucket holds slots of more than two entries: those below the bucket's threshold
// belong to its first entry, the others to its second. Decoding a slot takes one look-up of 64 bits, one
// comparison and no search.
//
// With the entry's frequency and the rank of the slot, a state x becomes frequency * (x >> 14) + rank. The
// fields are such that few instructions do that. Let rest be the number of slots behind x's own in the
// bucket, 255 - x % 256; then
//
//   x becomes frequency * ((x >> 14) + 1) + bias - rest
//
// with the first entry if rest > reach, else with the second. reach is 255 - threshold. It is the bias of the
// first entry, too, because that always takes its last slots in its bucket. A bucket of one entry has the
// threshold 0 and that entry as its second.
//
//   bits   0 ..  7  reach
//          8 .. 22  first entry: frequency
//         23 .. 28  first entry: its number, kEscapeMark for the escape
//         29 .. 43  second entry: frequency, so that 21 bits further right it takes the first one's place
//         44 .. 49  second entry: its number, likewise
//         50 .. 63  second entry: bias + 2^14; its bias is -2^14 .. -1
//
// A skip table is the table of one entry: it leaves every state as it is and never asks for a word, so no
// decoder needs to know about it.
constexpr int kBuckets = 64;
constexpr int kBucketBits = 8;
constexpr uint32_t kBucketSlots = 1u << kBucketBits;
constexpr int kFrequencyAt = 8;
constexpr uint32_t kFrequencyMask = 2 * kProbabilityOne - 1;  // 2^14, of a skip table, is one of them
constexpr int kNumberAt = 23;
constexpr int kSecondEntry = 21;  // by how much the second entry's fields lie further left
constexpr int kSecondBiasAt = 50;

// What turns a table entry into a symbol and back. The defaults are those of a skip table, whose only entry,
// 0, is no escape and stands for the symbol 0.
struct TableInfo {
  int32_t offset = 0;
  uint8_t regular = 1;  // entries that are no escapes
  uint8_t shift = 0;
  bool skip = true;
};

// The same, byte by byte, for look-ups inside registers. Shifts are at most kCompactShift there, so that the
// raw bits of eight symbols are less than 57.
constexpr int kCompactShift = 7;
struct CompactInfo {
  alignas(64) std::array<int8_t, kMaxTables> offset{};
  alignas(64) std::array<uint8_t, kMaxTables> regular{};
  alignas(64) std::array<uint8_t, kMaxTables> shift{};
  alignas(64) std::array<uint8_t, kMaxTables> raw_mask{};  // 2^shift - 1
};

// And as a symbol is made by one who takes them one by one: (entry << shift) + raw bits + base.
struct JoinInfo {
  int16_t base = 0;
  uint8_t shift = 0;
  uint8_t raw_mask = 0;
};

class TableSet {
 public:
  // frequencies: row-major [tables][width]. See docs/bitstream.md, "Tables", for the meaning. Throws
  // std::invalid_argument with a message that names the argument.
  TableSet(const int32_t* frequencies, size_t width, const int32_t* sizes, const int32_t* offsets,
           const uint8_t* shifts, size_t tables)
      : tables_(tables) {
    if (tables < 1 || tables > kMaxTables) {
      throw std::invalid_argument("a table set holds 1 to 256 tables, got " + std::to_string(tables));
    }
    if (width > kMaxEntries) {
      throw std::invalid_argument("frequencies: rows of at most 64 entries, got " + std::to_string(width));
    }
    frequencies_.assign(tables * kMaxEntries, 0);
    decode_.assign(kMaxTables * kBuckets, 0);
    for (size_t t = 0; t < kMaxTables; ++t) {
      if (t < tables) add_table(t, frequencies + t * width, width, sizes[t], offsets[t], shifts[t]);
      build_alias(t);
    }
    build_compact();
  }

  TableSet(const TableSet&) = delete;
  TableSet& operator=(const TableSet&) = delete;

  size_t tables() const { return tables_; }

  // These are valid for every byte: a set has 256 of each, those past its last table being skip tables. A
  // caller that changes an index while it is decoded gets nonsense, but no access out of bounds.
  const TableInfo& info(uint8_t table) const { return info_[table]; }
  const uint64_t* decode_table() const { return decode_.data(); }  // [256][64]
  bool first_is_skip() const { return info_[0].skip; }

  // Whether every regular entry of every table is an 8-bit quotient and a 16-bit symbol, whatever its at most
  // kCompactShift raw bits; only then are the next two filled in, and only escapes can lead out of 16 bits.
  bool is_compact() const { return compact_; }
  const CompactInfo& compact() const { return compact_info_; }
  JoinInfo join_info(uint8_t table) const { return join_info_[table]; }

  // A decoder never builds the tables of the encoder. Safe from several threads.
  void prepare_for_encoding() const {
    std::call_once(encode_once_, [this] { build_encode_tables(); });
  }
  const EncodeTables& encode_tables() const { return encode_; }

 private:
  void add_table(size_t t, const int32_t* row, size_t width, int32_t size, int32_t offset, uint8_t shift) {
    const std::string where = "table " + std::to_string(t) + ": ";
    if (size == 0) return;  // a skip table: no offset, no shift
    if (size < 2 || static_cast<size_t>(size) > width) {
      throw std::invalid_argument(where + "sizes must be 0 (skip) or 2 to the row length " +
                                  std::to_string(width) + ", got " + std::to_string(size));
    }
    if (shift > kMaxShift) {
      throw std::invalid_argument(where + "shifts must be 0 to 12, got " + std::to_string(shift));
    }
    if (offset < -32768 || offset > 32767 + 2 - size) {
      throw std::invalid_argument(where + "offsets must keep every entry within int16, got offset " +
                                  std::to_string(offset) + " with " + std::to_string(size - 1) + " entries");
    }
    int64_t sum = 0;
    for (int32_t k = 0; k < size; ++k) {
      if (row[k] < 1) {
        throw std::invalid_argument(where + "frequencies must be at least 1, got " + std::to_string(row[k]) +
                                    " at entry " + std::to_string(k));
      }
      sum += row[k];
    }
    if (sum != kProbabilityOne) {
      throw std::invalid_argument(where + "frequencies must sum to 16384, got " + std::to_string(sum));
    }
    std::copy_n(row, size, frequencies_.begin() + t * kMaxEntries);
    info_[t] = {offset, static_cast<uint8_t>(size - 1), shift, false};
  }

  // The frequencies of a table's entries in their order, the escape last.
  std::vector<uint32_t> row_of(size_t t) const {
    if (info_[t].skip) return {kProbabilityOne};
    const int32_t* row = &frequencies_[t * kMaxEntries];
    return std::vector<uint32_t>(row, row + info_[t].regular + 1);
  }

  // The number under which lanes know an entry.
  uint64_t number_of(size_t t, size_t entry) const {
    return entry == info_[t].regular ? static_cast<uint64_t>(kEscapeMark) : entry;
  }

  static uint64_t fields_of(uint32_t frequency, uint64_t number) {
    return uint64_t{frequency} << kFrequencyAt | number << kNumberAt;
  }

  // Each bucket takes what is left of the rarest entry (at most a whole bucket) and is filled up with the
  // most frequent one. The most frequent always has enough left: after j buckets the rests sum to (64 - j) *
  // 256, and at most 64 - j entries have any, because every bucket but a full one uses an entry up.
  void build_alias(size_t t) {
    const std::vector<uint32_t> row = row_of(t);
    std::vector<uint32_t> left = row;
    for (uint32_t b = 0; b < kBuckets; ++b) {
      int rarest = -1, commonest = -1;
      for (int k = 0; k < static_cast<int>(row.size()); ++k) {
        if (left[k] == 0) continue;
        if (rarest < 0 || left[k] < left[rarest]) rarest = k;
        if (commonest < 0 || left[k] > left[commonest]) commonest = k;
      }
      uint32_t threshold = std::min(left[rarest], kBucketSlots);
      if (threshold == kBucketSlots) {
        commonest = rarest;
        threshold = 0;
      }
      left[rarest] -= threshold;
      const uint32_t used = row[commonest] - left[commonest];
      left[commonest] -= kBucketSlots - threshold;
      const uint32_t reach = kBucketSlots - 1 - threshold;
      const uint32_t second_bias = reach + used - row[commonest] + kProbabilityOne;
      decode_[t * kBuckets + b] = reach | fields_of(row[rarest], number_of(t, rarest)) |
                                  fields_of(row[commonest], number_of(t, commonest)) << kSecondEntry |
                                  uint64_t{second_bias} << kSecondBiasAt;
    }
  }

  void build_compact() {
    for (size_t t = 0; t < kMaxTables; ++t) {
      const TableInfo& info = info_[t];
      const int32_t last = info.offset + info.regular - 1, half = (1 << info.shift) >> 1;
      if (info.offset < -128 || last > 127 || info.offset * (1 << info.shift) - half < -32768 ||
          (last + 1) * (1 << info.shift) - half - 1 > 32767 || info.shift > kCompactShift) {
        return;
      }
      compact_info_.offset[t] = static_cast<int8_t>(info.offset);
      compact_info_.regular[t] = info.regular;
      compact_info_.shift[t] = info.shift;
      compact_info_.raw_mask[t] = static_cast<uint8_t>((1 << info.shift) - 1);
      join_info_[t] = {static_cast<int16_t>(info.offset * (1 << info.shift) - half), info.shift,
                       compact_info_.raw_mask[t]};
    }
    compact_ = true;
  }

  // Inverts the decoder's table: the slots of its buckets, as runs of the entries they belong to.
  void build_encode_tables() const {
    encode_.reserve(tables_);
    for (size_t t = 0; t < tables_; ++t) {
      std::array<std::vector<EncodeTables::Run>, kMaxEntries> runs;
      const auto add_run = [&](uint32_t number, uint32_t rank, uint32_t slot) {
        const uint32_t delta = (slot - rank) & (kProbabilityOne - 1);
        if (runs[number].empty() || runs[number].back().delta != delta) runs[number].push_back({rank, delta});
      };
      for (uint32_t b = 0; b < kBuckets; ++b) {
        const uint64_t bucket = decode_[t * kBuckets + b];
        const uint32_t reach = bucket & (kBucketSlots - 1), threshold = kBucketSlots - 1 - reach;
        const uint32_t slot = b << kBucketBits;
        const uint64_t second = bucket >> kSecondEntry;
        const uint32_t first_frequency = (bucket >> kFrequencyAt) & kFrequencyMask;
        const uint32_t second_frequency = (second >> kFrequencyAt) & kFrequencyMask;
        const uint32_t used =
            second_frequency + static_cast<uint32_t>(bucket >> kSecondBiasAt) - kProbabilityOne - reach;
        if (threshold > 0)
          add_run((bucket >> kNumberAt) & (kMaxEntries - 1), first_frequency - threshold, slot);
        add_run((second >> kNumberAt) & (kMaxEntries - 1), used, slot + threshold);
      }
      const std::vector<uint32_t> row = row_of(t);
      for (size_t k = 0; k < row.size(); ++k) encode_.add(t, number_of(t, k), row[k], runs[number_of(t, k)]);
    }
  }

  size_t tables_;
  std::array<TableInfo, kMaxTables> info_{};
  bool compact_ = false;
  CompactInfo compact_info_;
  std::array<JoinInfo, kMaxTables> join_info_{};
  std::vector<int32_t> frequencies_;  // [tables][64]
  std::vector<uint64_t> decode_;

  mutable std::once_flag encode_once_;
  mutable EncodeTables encode_;
};

}  // namespace aicr
