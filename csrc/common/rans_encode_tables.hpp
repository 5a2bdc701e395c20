// What is derived from a frequency table for encoding: how to divide by a frequency, and where an entry's
// slots lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/rans_format.hpp"

namespace aicr {

// How one entry is coded. For states x < 2^31, x / frequency = (x * reciprocal) >> (31 + shift), exactly by
// Granlund and Montgomery, with shift = ceil(log2 frequency) and reciprocal = ceil(2^(31 + shift) /
// frequency).
//
// The cell of a rank is first_cell + min(rank >> cell_shift, last_cell).
struct alignas(16) EncodeEntry {
  uint32_t reciprocal = 0;
  uint16_t frequency = 0;
  uint16_t shift = 0;
  uint32_t first_cell = 0;  // among the cells of all tables
  uint16_t cell_shift = 0;
  uint16_t last_cell = 0;
};
static_assert(sizeof(EncodeEntry) == 16, "kernels load an entry as four numbers of 32 bits");

// The slots of an entry form *runs*: consecutive ranks in consecutive slots, so that within a run slot - rank
// is a constant. A cell stands for 2^cell_shift ranks of an entry, the last for all that follow. They are so
// many that none takes part in more than two runs: finding a slot takes one look-up of 64 bits, one
// comparison and no search, as decoding does. Most entries have one to five runs, and about as many cells; at
// the very worst there is a cell for every rank.
//
//   bits   0 .. 15  slot - rank in the first run, modulo 2^14
//         16 .. 31  last rank of the first run, 2^14 - 1 if there is no second
//         32 .. 63  slot - rank in the second run, modulo 2^14
using Cell = uint64_t;

class EncodeTables {
 public:
  // Ranks from `rank` on, up to the next run's, have the slots rank + delta.
  struct Run {
    uint32_t rank;
    uint32_t delta;
  };

  const EncodeEntry* entries() const { return entries_.data(); }  // [tables][64]; the escape: kEscapeMark
  const Cell* cells() const { return cells_.data(); }

  void reserve(size_t tables) { entries_.resize(tables * kMaxEntries); }

  // `runs` in ascending order of their ranks, from 0 on.
  void add(size_t table, size_t number, uint32_t frequency, const std::vector<Run>& runs) {
    EncodeEntry& entry = entries_[table * kMaxEntries + number];
    entry.frequency = static_cast<uint16_t>(frequency);
    while ((1u << entry.shift) < frequency) ++entry.shift;
    entry.reciprocal =
        static_cast<uint32_t>(((uint64_t{1} << (31 + entry.shift)) + frequency - 1) / frequency);
    entry.first_cell = static_cast<uint32_t>(cells_.size());
    entry.last_cell = UINT16_MAX;
    for (uint16_t shift = 0; shift <= kProbabilityBits; ++shift) {
      const uint32_t open_end = first_open_end(runs, shift);
      const uint32_t last = std::min(open_end, (frequency - 1) >> shift);
      if (last > entry.last_cell || crowded(runs, shift, open_end)) continue;
      entry.cell_shift = shift;
      entry.last_cell = static_cast<uint16_t>(last);
    }
    for (uint32_t cell = 0; cell <= entry.last_cell; ++cell) {
      const uint32_t rank = cell << entry.cell_shift;
      const uint32_t end = cell < entry.last_cell ? (cell + 1) << entry.cell_shift : frequency;
      size_t run = 0;
      while (run + 1 < runs.size() && runs[run + 1].rank <= rank) ++run;
      const bool second = run + 1 < runs.size() && runs[run + 1].rank < end;
      const uint32_t last_rank = second ? runs[run + 1].rank - 1 : kProbabilityOne - 1;
      cells_.push_back(runs[run].delta | uint64_t{last_rank} << 16 |
                       uint64_t{runs[second ? run + 1 : run].delta} << 32);
    }
  }

 private:
  // The first cell that, without an end, would take part in no more than two runs.
  static uint32_t first_open_end(const std::vector<Run>& runs, int shift) {
    if (runs.size() < 3) return 0;
    return (runs[runs.size() - 2].rank + (1u << shift) - 1) >> shift;
  }

  // Whether a cell in front of that one takes part in more.
  static bool crowded(const std::vector<Run>& runs, int shift, uint32_t open_end) {
    for (size_t i = 1; i + 1 < runs.size(); ++i) {
      const uint32_t cell = runs[i].rank >> shift;
      if (cell < open_end && runs[i].rank != cell << shift && runs[i + 1].rank >> shift == cell) return true;
    }
    return false;
  }

  std::vector<EncodeEntry> entries_;
  std::vector<Cell> cells_;
};

}  // namespace aicr
