// What a table set becomes on the device. The numbers of a set are known there only, so kernels make it, and
// each step makes it anew: 256 warps, a table each, take no time beside a launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/rans_tables.hpp"

namespace aicr {

// A table's offset (16 bits), regular entries (8), shift (4), and whether it is a skip table (1); see
// TableInfo.
constexpr int kRegularAt = 16, kShiftAt = 24, kSkipAt = 28;

// A frequency takes 15 bits, because that of a skip table is 2^14.
constexpr int kStepFrequencyBits = kProbabilityBits + 1;

// What an entry means: its shift (4 bits), whether it is special, and from the 8th bit on, in 16 bits, its
// symbol if the raw bits are 0. Of a special one, the escape or one that may lead out of 16 bits, they hold
// the number.
constexpr int kMeaningAt = 8, kThresholdAt = 24;
constexpr uint32_t kShiftMask = 15, kSpecial = 16;

struct RansTablesCuda {
  // What a slot does to a state, for the two entries of its bucket, the first one in the low half: the
  // frequency, and above it rank - frequency as it were for slot 0 of the bucket; adding a slot's place there
  // makes it its own. This is negative if the slot belongs to the entry. If it does not, a first entry's is 0
  // or more, and a second one's is below that of the first; so, as numbers without a sign, the larger one is
  // the right one.
  uint64_t step[kMaxTables][kBuckets];
  // What a slot means, likewise; above that of the first entry, the threshold.
  uint64_t meaning[kMaxTables][kBuckets];
  uint32_t info[kMaxTables];
  // Remainders of CRC-32C: crc[k][b], what byte b becomes k + 1 bytes further on; stride[k][b], what byte b,
  // k bytes up in a remainder, becomes kStrideBytes further on.
  uint32_t crc[4][256];
  uint32_t stride[4][256];
  alignas(4) uint8_t valid[kMaxTables];  // 0 if this table, or the set, is none
  int32_t tables;
  int32_t splits_rise;  // whether those that were given with the set make sense; 0 if there were none
};

// Where the symbols of a segment are cut: `streams` + 1 positions that should rise from 0 to `count`.
struct RansSplitsCuda {
  const int64_t* at;
  int64_t streams, count;
};

// The slots of a table in the order of their entries and ranks: the *position* of a slot is the first one of
// its entry plus its rank. Positions form runs that lie in a row among the slots, two for each bucket at
// most, so slot - position is a constant of the run. A cell, of 64 positions, holds the first two runs that
// are in it, and which one to go on with if there are more: mostly a slot takes one look-up.
constexpr int kCellBits = 6;
constexpr int kCells = kProbabilityOne >> kCellBits;
constexpr int kMaxRuns = 2 * kBuckets;
struct RansRunsCuda {
  // The reciprocal (32 bits; see EncodeEntry), the first position (14), the shift (4), the frequency (14), by
  // the number that lanes know; 0 in skip tables.
  uint64_t entry[kMaxTables][kMaxEntries];
  // The differences of both runs (14 bits each), where the second begins, and, at the 48th bit, the number of
  // the third, 0 if it is not in the cell.
  uint64_t cell[kMaxTables][kCells];
  // The difference and, from the 16th bit on, where the run begins; behind the last some that begin at 2^14.
  uint32_t run[kMaxTables][kMaxRuns + 2];
};

// `numbers`: `size` of them, as TableSet.tensor gives them. Splits are looked at on the way, once for all
// streams; `at` may be null. So may `runs`, which decoders do not need.
cudaError_t launch_rans_tables(const int32_t* numbers, int64_t size, const RansSplitsCuda& splits,
                               RansTablesCuda* tables, RansRunsCuda* runs, cudaStream_t stream);

}  // namespace aicr
