// Functions that kernels of CUDA call too.
#pragma once

#if defined(__CUDACC__)
#define AICR_HOST_DEVICE __host__ __device__
#else
#define AICR_HOST_DEVICE
#endif
