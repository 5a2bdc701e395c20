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

struct RansTablesCuda {
  uint64_t decode[kMaxTables][kBuckets];  // as in TableSet
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

// Which slot has a given rank in a given entry: slot[table][first of the entry + rank].
struct RansSlotsCuda {
  uint16_t slot[kMaxTables][kProbabilityOne];
  uint32_t entry[kMaxTables][kMaxEntries];  // frequency (15 bits), first (14) by the number that lanes know
};

// `numbers`: `size` of them, as TableSet.tensor gives them. Splits are looked at on the way, once for all
// streams; `at` may be null.
cudaError_t launch_rans_tables(const int32_t* numbers, int64_t size, const RansSplitsCuda& splits,
                               RansTablesCuda* tables, cudaStream_t stream);
cudaError_t launch_rans_slots(const RansTablesCuda* tables, const int32_t* numbers, RansSlotsCuda* slots,
                              cudaStream_t stream);

}  // namespace aicr
