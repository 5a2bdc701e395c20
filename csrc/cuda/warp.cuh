// Sums over the lanes of a warp, all of which take part.
#pragma once

#include <cuda_runtime.h>

namespace aicr {

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

// The sum over `lanes` neighbouring lanes, a power of two; the same bits in each of them.
__device__ __forceinline__ float sum_over(float value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

// The address, which is the same in all lanes, in registers: it comes from another lane. One that the
// compiler knows to be a parameter it loads anew wherever it is used, and a loop waits for it.
template <typename T>
__device__ __forceinline__ const T* registered(const T* address) {
  return reinterpret_cast<const T*>(__shfl_sync(kAll, reinterpret_cast<unsigned long long>(address), 0));
}

// The sum over the lanes up to this one.
template <typename Integer>
__device__ __forceinline__ Integer prefix_sum(Integer value, int lane) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const Integer other = __shfl_up_sync(kAll, value, static_cast<unsigned>(step));
    if (lane >= step) value += other;
  }
  return value;
}

}  // namespace aicr
