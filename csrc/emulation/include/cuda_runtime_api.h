// Stands in for the header of the CUDA run time where kernels run on the host (docs/cuda.md): what host code
// of the operators uses of it, and no more.
#pragma once

#include <cstddef>

using cudaStream_t = struct CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};

// What was wrong with the last launch, if that is the error; else the name of the error.
const char* cudaGetErrorString(cudaError_t error);

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
