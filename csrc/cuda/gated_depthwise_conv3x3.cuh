// The launch interface of gated_depthwise_conv3x3 and its derivative on CUDA. No torch here;
// gated_depthwise_conv3x3.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

// Dense maps, in memory channel-minor (channels_last) or as planes: x of batch x 2 channels x height x width,
// out of half the channels.
struct GatedDepthwiseCuda {
  const void* x;
  void* out;
  const void* weight;  // [2 channels][9], float32 or of the feature type
  const void* bias;    // [2 channels], likewise, or null
  bool weight_is_float32, bias_is_float32;
  int64_t batch, channels, height, width;  // channels: of out
  bool channels_last;
  bool gelu;  // of the first half, before it multiplies the second
  FeatureType type;
};

// Queues the kernel on the stream; cudaErrorInvalidConfiguration if the shape needs more than 2^31 - 1
// blocks.
cudaError_t launch_gated_depthwise_conv3x3(const GatedDepthwiseCuda& arguments, cudaStream_t stream);

// Likewise, with the gradient of the result and room for those of x, weight and bias.
struct GatedDepthwiseBackwardCuda {
  const void* grad;
  const void* x;
  void* grad_x;
  const void* weight;
  const void* bias;
  float* grad_weight;  // [2 channels][9]
  float* grad_bias;    // [2 channels], or null
  float* parts;        // gated_depthwise_backward_parts() of them
  bool weight_is_float32, bias_is_float32;
  int64_t batch, channels, height, width;  // channels: of grad
  bool channels_last, gelu;
  FeatureType type;
};

// Room for the sums of the parts of the pixels, from batch, channels, height and width.
int64_t gated_depthwise_backward_parts(const GatedDepthwiseBackwardCuda& arguments);

// Queues the kernels on the stream; cudaErrorInvalidConfiguration as above, or for 2^28 channels, rows or
// columns and more.
cudaError_t launch_gated_depthwise_conv3x3_backward(const GatedDepthwiseBackwardCuda& arguments,
                                                    cudaStream_t stream);

}  // namespace aicr
