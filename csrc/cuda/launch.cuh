// How kernels are launched and get dynamic shared memory: the same in CUDA and on the host (docs/cuda.md).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#if defined(AICR_EMULATION)
#include "emulation/block.hpp"
#endif

namespace aicr {

// Dynamic shared memory that a kernel gets without asking: 48 KiB less its static memory, of which kernels
// that have both kinds have 16 KiB at most. On the host nothing knows the static part, so only a GPU would
// notice.
constexpr size_t kUsualShared = 32 * 1024;

template <typename T>
struct Same {
  using type = T;
};

template <typename... Parameters>
cudaError_t launch_kernel([[maybe_unused]] const char* name, void (*kernel)(Parameters...), dim3 grid,
                          dim3 block, size_t shared_bytes, [[maybe_unused]] cudaStream_t stream,
                          typename Same<Parameters>::type... arguments) {
#if defined(AICR_EMULATION)
  return emulation::launch(name, grid, block, shared_bytes, [&] { kernel(arguments...); });
#else
  if (shared_bytes > kUsualShared) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) {
      cudaGetLastError();  // or the next launch would report it too
      return error;
    }
  }
  kernel<<<grid, block, shared_bytes, stream>>>(arguments...);
  return cudaGetLastError();
#endif
}

}  // namespace aicr

// AICR_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...): a cudaError_t. The kernel is named,
// not computed; one with template arguments stands in parentheses. shared_bytes is dynamic shared memory.
#define AICR_LAUNCH(kernel, ...) ::aicr::launch_kernel(#kernel, kernel, __VA_ARGS__)

// Declares `name`, a pointer to the dynamic shared memory of the block, aligned to 128 bytes.
#if defined(AICR_EMULATION)
#define AICR_DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(::aicr::emulation::dynamic_shared())
#else
#define AICR_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(128) unsigned char aicr_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(aicr_dynamic_shared)
#endif
