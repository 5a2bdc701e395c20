// The launch interface of gelu_gate and its derivative on CUDA. No torch here; gelu_gate.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

// Memory as [rows][2][run], the gate before what it lets pass: of a channels-last map the rows are pixels, of
// planes they are pictures. Results are [rows][run].
struct GeluGateCuda {
  const void* x;
  const void* grad;  // of the result, or null
  void* out;         // the result, or the gradient of x
  int64_t rows, run;
  FeatureType type;
};

// Queues the kernel on the stream, that of the derivative where there is a gradient;
// cudaErrorInvalidConfiguration if the shape needs more than 2^31 - 1 blocks.
cudaError_t launch_gelu_gate(const GeluGateCuda& arguments, cudaStream_t stream);

}  // namespace aicr
