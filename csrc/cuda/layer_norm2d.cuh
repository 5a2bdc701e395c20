// The launch interface of layer_norm2d on CUDA. No torch here; layer_norm2d.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

// Dense maps of batch x channels x pixels, in memory channel-minor (channels_last) or as planes.
struct LayerNorm2dCuda {
  const void* x;
  void* out;
  const void* weight;  // [channels], float32 or of the feature type
  const void* bias;    // likewise, or null
  bool weight_is_float32, bias_is_float32;
  int64_t batch, channels, pixels;
  bool channels_last, subtract_mean;
  float eps;
  FeatureType type;
};

// Queues the kernel on the stream; cudaErrorInvalidConfiguration if the shape needs more than 2^31 - 1
// blocks.
cudaError_t launch_layer_norm2d(const LayerNorm2dCuda& arguments, cudaStream_t stream);

}  // namespace aicr
