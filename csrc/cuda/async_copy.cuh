// Copies from global to shared memory that go on while the thread does other things (cp.async, from sm_80
// on).
//
// A thread may read what it has copied after wait_for_copies, other threads after a barrier behind that. On
// the host the target holds garbage until then.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace aicr {

// Begins to copy kBytes, 4, 8 or 16, to which both addresses are aligned. With `inside` false the target
// becomes zeros, and nothing is read.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool inside = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
#if defined(AICR_EMULATION)
  emulation::begin_copy(shared, inside ? global : nullptr, kBytes);
#else
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const auto from = __cvta_generic_to_global(global);
  const int bytes = inside ? kBytes : 0;
  if constexpr (kBytes == 16) {  // past the L1 cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(kBytes), "r"(bytes)
                 : "memory");
  }
#endif
}

// Ends a group: all copies that the thread has begun since it ended the last.
__device__ __forceinline__ void commit_copies() {
#if defined(AICR_EMULATION)
  emulation::commit_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all groups of the thread but the last kGroupsLeft.
template <int kGroupsLeft>
__device__ __forceinline__ void wait_for_copies() {
#if defined(AICR_EMULATION)
  emulation::wait_for_copies(kGroupsLeft);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
#endif
}

}  // namespace aicr
