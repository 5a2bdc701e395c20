// What kernels of the entropy coder ask of the tables, a warp at a time.
#pragma once

#include <cstdint>

#include "cuda/rans_tables.cuh"

namespace aicr {

// Whether all tables of a set are some. Each warp of a step asks it, so flags are read four at a time.
__device__ __forceinline__ bool tables_are_valid(const RansTablesCuda& tables, int lane) {
  const auto* flags = reinterpret_cast<const uint32_t*>(tables.valid);
  bool valid = true;
#pragma unroll
  for (int i = 0; i < kMaxTables / 128; ++i) valid = valid && flags[lane + 32 * i] == 0x01010101u;
  return __all_sync(0xffffffffu, valid) != 0;
}

}  // namespace aicr
