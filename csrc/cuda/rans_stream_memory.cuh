// Where the pieces of a stream lie while it is encoded, and how a kernel says that it cannot be.
#pragma once

#include <cstdint>

#include "cuda/rans_encode.cuh"

namespace aicr {

__device__ __forceinline__ int own_lane() {
  return static_cast<int>(threadIdx.x % 32);
}

__device__ __forceinline__ bool is_fine(const RansEncodeCuda& task, int64_t s) {
  return task.reports[s].problem == 0;
}

__device__ inline void report(const RansEncodeCuda& task, int64_t s, EncodeProblem problem, int64_t position,
                              int64_t value) {
  task.reports[s] = {static_cast<int64_t>(problem), task.segment, position, value};
}

// Each stream's words of 32 bits for raw bits and for escapes begin here, counted from those of the first.
__device__ __forceinline__ int64_t raw_place(const EncodeRow& row, int64_t s) {
  return row.begin * 3 / 8 + s;
}
__device__ __forceinline__ int64_t escape_place(const EncodeRow& row, int64_t s) {
  return row.begin + s;
}

}  // namespace aicr
