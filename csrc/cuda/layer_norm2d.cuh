// The launch interface of layer_norm2d and its derivative on CUDA. No torch here; layer_norm2d.cpp calls it.
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

// Likewise, with the gradient of the result and room for those of x, weight and bias.
struct LayerNorm2dBackwardCuda {
  const void* grad;
  const void* x;
  void* grad_x;
  const void* weight;
  float* grad_weight;  // [channels]
  float* grad_bias;    // [channels], or null
  float* statistics;   // [batch][pixels][2]
  float* parts;        // layer_norm2d_backward_parts() of them
  bool weight_is_float32;
  int64_t batch, channels, pixels;
  bool channels_last, subtract_mean;
  float eps;
  FeatureType type;
};

// Room for the sums of the parts of the pixels, from batch, channels and pixels.
int64_t layer_norm2d_backward_parts(const LayerNorm2dBackwardCuda& arguments);

// Queues the kernels on the stream; cudaErrorInvalidConfiguration as above.
cudaError_t launch_layer_norm2d_backward(const LayerNorm2dBackwardCuda& arguments, cudaStream_t stream);

}  // namespace aicr
