// An array in shared memory whose address stays in a register. Left to itself, nvcc makes an address of
// shared memory anew where it is needed, out of the block's place in its cluster, which takes longer than the
// access.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/warp.cuh"

namespace aicr {

template <typename T>
class NearArray {
 public:
#if defined(AICR_EMULATION)
  __device__ explicit NearArray(const T* shared) : at_(reinterpret_cast<const char*>(shared)) {}
#else
  // All lanes of a warp make it together.
  __device__ explicit NearArray(const T* shared)
      : at_(__shfl_sync(kAll, static_cast<uint32_t>(__cvta_generic_to_shared(shared)), 0)) {}
#endif

  // What is left from this byte on.
  __device__ __forceinline__ NearArray from(uint32_t byte) const {
    NearArray rest = *this;
    rest.at_ += byte;
    return rest;
  }

  __device__ __forceinline__ T front() const {
#if defined(AICR_EMULATION)
    return *reinterpret_cast<const T*>(at_);
#else
    return *static_cast<const T*>(__cvta_shared_to_generic(at_));
#endif
  }

 private:
#if defined(AICR_EMULATION)
  const char* at_;
#else
  uint32_t at_;
#endif
};

}  // namespace aicr
