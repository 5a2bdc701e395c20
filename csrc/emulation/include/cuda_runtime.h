// Stands in for the header of the CUDA run time where kernels run on the host: the words of the language, the
// built-in variables and functions. docs/cuda.md tells how it works; a kernel that needs more than is here
// does not compile.
#pragma once

#include <cuda_runtime_api.h>

#include "emulation/arithmetic.hpp"
#include "emulation/block.hpp"
#include "emulation/vectors.hpp"
#include "emulation/warp.hpp"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One array serves all blocks, which run one after another. As variables of the thread they lie together, and
// are filled with garbage before each block; AddressSanitizer guards the ends of ordinary ones only.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

constexpr int warpSize = 32;

// Of the thread that is running.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
