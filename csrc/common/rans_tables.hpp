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

#include "common/rans_format.hpp"

namespace aicr {

// The alias table of one frequency table (Walker's method). The 2^14 slots fall into 64 buckets of 256, and
// no bucket holds slots of more than two entries: those below the bucket's threshold belong to its first
// entry, the others to its second. Decoding a slot takes two look-ups and no search. 768 bytes, laid out for
// 32-bit gathers.
struct AliasTable {
  static constexpr int kBuckets = 64;
  static constexpr int kBucketBits = 8;
  static constexpr uint32_t kBucketSlots = 1u << kBucketBits;

  // Per bucket: threshold (0..256) | first entry << 10 | second entry << 16.
  std::array<uint32_t, kBuckets> bucket;
  // Per bucket and side (0 first entry, 1 second): frequency | bias << 16. The rank of a slot among the slots
  // of its entry is (slot within the bucket + bias) mod 2^14.
  std::array<uint32_t, 2 * kBuckets> part;
};

// How the encoder codes one entry. x / frequency is mulhi(x, reciprocal) >> shift, exact for x < 2^31 by
// Granlund and Montgomery: reciprocal = ceil(2^(31 + ceil(log2 f)) / f). For f = 1 that does not fit 32 bits;
// 2^32 - 1 gives x - 1 for every x > 0, and plus_one mends it.
struct EncodeEntry {
  uint32_t reciprocal;
  uint16_t frequency;
  uint8_t shift;
  uint8_t plus_one;
  uint32_t renormalise_from;  // frequency << 17: from this state on a word must go out first
  uint32_t first_rank;        // sum of the frequencies of the entries before
};

// What turns a table entry into a symbol and back. The defaults are those of a skip table, whose only entry,
// 0, is no escape and stands for the symbol 0.
struct TableInfo {
  int32_t offset = 0;
  int16_t escape = -1;  // index of the last entry, which stands for every quotient the others do not
  uint8_t shift = 0;
  bool skip = true;
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
    alias_.resize(tables);
    for (size_t t = 0; t < tables; ++t) {
      add_table(t, frequencies + t * width, width, sizes[t], offsets[t], shifts[t]);
    }
  }

  TableSet(const TableSet&) = delete;
  TableSet& operator=(const TableSet&) = delete;

  size_t tables() const { return tables_; }
  // Valid for every byte: a set has 256 of these, those past its last table being skip tables.
  const TableInfo& info(uint8_t table) const { return info_[table]; }
  const AliasTable& alias(size_t table) const { return alias_[table]; }

  // The encoder's tables take 33 KiB per frequency table; a decoder never builds them. Safe from several
  // threads.
  void prepare_for_encoding() const {
    std::call_once(encode_once_, [this] { build_encode_tables(); });
  }
  const EncodeEntry& encode_entry(size_t table, uint8_t entry) const {
    return encode_entries_[table * kMaxEntries + entry];
  }
  // The slot of the entry's rank-th occurrence; `rank` counts through all entries of the table.
  uint16_t slot_of_rank(size_t table, uint32_t rank) const { return slots_[table * kProbabilityOne + rank]; }

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
    if (offset < -32768 || offset + size - 2 > 32767) {
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
    info_[t] = {offset, static_cast<int16_t>(size - 1), shift, false};
    build_alias(t);
  }

  // Each bucket takes what is left of the rarest entry (at most a whole bucket) and is filled up with the
  // most frequent one. The most frequent always has enough left: after j buckets the rests sum to (64 - j) *
  // 256, and at most 64 - j entries have any, because every bucket but a full one uses an entry up.
  void build_alias(size_t t) {
    const int size = info_[t].escape + 1;
    const int32_t* frequency = &frequencies_[t * kMaxEntries];
    std::array<uint32_t, kMaxEntries> left{};
    std::copy_n(frequency, size, left.begin());
    AliasTable& alias = alias_[t];
    for (uint32_t b = 0; b < AliasTable::kBuckets; ++b) {
      int rarest = -1, commonest = -1;
      for (int k = 0; k < size; ++k) {
        if (left[k] == 0) continue;
        if (rarest < 0 || left[k] < left[rarest]) rarest = k;
        if (commonest < 0 || left[k] > left[commonest]) commonest = k;
      }
      const uint32_t threshold = std::min(left[rarest], AliasTable::kBucketSlots);
      alias.bucket[b] =
          threshold | static_cast<uint32_t>(rarest) << 10 | static_cast<uint32_t>(commonest) << 16;
      const auto part = [&](int entry, uint32_t first_slot) {
        const uint32_t used = frequency[entry] - left[entry];
        return static_cast<uint32_t>(frequency[entry]) | ((used - first_slot) & (kProbabilityOne - 1)) << 16;
      };
      alias.part[2 * b] = part(rarest, 0);
      left[rarest] -= threshold;
      alias.part[2 * b + 1] = part(commonest, threshold);
      left[commonest] -= AliasTable::kBucketSlots - threshold;
    }
  }

  void build_encode_tables() const {
    encode_entries_.assign(tables_ * kMaxEntries, EncodeEntry{});
    slots_.assign(tables_ * kProbabilityOne, 0);
    for (size_t t = 0; t < tables_; ++t) {
      uint32_t first_rank = 0;
      for (int k = 0; k <= info_[t].escape; ++k) {
        const auto frequency = static_cast<uint32_t>(frequencies_[t * kMaxEntries + k]);
        encode_entries_[t * kMaxEntries + k] = make_encode_entry(frequency, first_rank);
        first_rank += frequency;
      }
      if (!info_[t].skip) build_slots(t);
    }
  }

  static EncodeEntry make_encode_entry(uint32_t frequency, uint32_t first_rank) {
    EncodeEntry e{};
    e.frequency = static_cast<uint16_t>(frequency);
    e.first_rank = first_rank;
    e.renormalise_from = frequency << (31 - kProbabilityBits);
    if (frequency == 1) {
      e.reciprocal = ~0u;
      e.plus_one = 1;
    } else {
      int log2_up = 1;
      while ((1u << log2_up) < frequency) ++log2_up;
      e.reciprocal = static_cast<uint32_t>(((uint64_t{1} << (31 + log2_up)) + frequency - 1) / frequency);
      e.shift = static_cast<uint8_t>(log2_up - 1);
    }
    return e;
  }

  // Inverts the alias table: for every slot, its entry and rank as the decoder finds them.
  void build_slots(size_t t) const {
    const AliasTable& alias = alias_[t];
    for (uint32_t slot = 0; slot < kProbabilityOne; ++slot) {
      const uint32_t b = slot >> AliasTable::kBucketBits, within = slot & (AliasTable::kBucketSlots - 1);
      const uint32_t side = within >= (alias.bucket[b] & 1023);
      const uint32_t entry = (alias.bucket[b] >> (side ? 16 : 10)) & 63;
      const uint32_t rank = (within + (alias.part[2 * b + side] >> 16)) & (kProbabilityOne - 1);
      slots_[t * kProbabilityOne + encode_entries_[t * kMaxEntries + entry].first_rank + rank] =
          static_cast<uint16_t>(slot);
    }
  }

  size_t tables_;
  std::array<TableInfo, kMaxTables> info_{};
  std::vector<int32_t> frequencies_;  // [tables][64]
  std::vector<AliasTable> alias_;

  mutable std::once_flag encode_once_;
  mutable std::vector<EncodeEntry> encode_entries_;  // [tables][64]
  mutable std::vector<uint16_t> slots_;              // [tables][2^14]: rank -> slot
};

}  // namespace aicr
