// What kernels of the entropy coder share: the pieces in which a warp takes symbols, and how tables are read.
#pragma once

#include <cstdint>

#include "cuda/rans_tables.cuh"
#include "cuda/warp.cuh"

namespace aicr {

constexpr int kEach = 4;               // symbols of a lane
constexpr int kPiece = kWarp * kEach;  // that are taken together

// Whether all tables of a set are some. Each warp of a step asks it, so flags are read four at a time.
__device__ __forceinline__ bool tables_are_valid(const RansTablesCuda& tables, int lane) {
  const auto* flags = reinterpret_cast<const uint32_t*>(tables.valid);
  bool valid = true;
#pragma unroll
  for (int i = 0; i < kMaxTables / 128; ++i) valid = valid && flags[lane + 32 * i] == 0x01010101u;
  return __all_sync(kAll, valid) != 0;
}

// Whose a slot is: the entry's number and frequency, and what to add to the frequency for the slot's rank, as
// in common/rans_tables.hpp.
struct UnpackedSlot {
  uint32_t number, frequency, offset;
};

__device__ __forceinline__ UnpackedSlot unpack_bucket(uint64_t bucket, uint32_t slot) {
  const uint32_t rest = ~slot & (kBucketSlots - 1), reach = bucket & (kBucketSlots - 1);
  const bool second = rest <= reach;
  const uint64_t fields = second ? bucket >> kSecondEntry : bucket;
  const uint32_t bias = second ? static_cast<uint32_t>(bucket >> kSecondBiasAt) - kProbabilityOne : reach;
  return {static_cast<uint32_t>(fields >> kNumberAt & (kMaxEntries - 1)),
          static_cast<uint32_t>(fields >> kFrequencyAt & kFrequencyMask), bias - rest};
}

}  // namespace aicr
