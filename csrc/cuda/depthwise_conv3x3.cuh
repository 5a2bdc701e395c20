// The launch interface of depthwise_conv3x3_backward on CUDA. No torch here; depthwise_conv3x3.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

// Dense maps of batch x channels x height x width, in memory channel-minor (channels_last) or as planes.
struct DepthwiseBackwardCuda {
  const void* grad;
  const void* x;
  void* grad_x;
  const void* weight;  // [channels][9], float32 or of the feature type
  float* grad_weight;  // [channels][9]
  float* grad_bias;    // [channels], or null
  float* parts;        // depthwise_backward_parts() of them
  bool weight_is_float32;
  int64_t batch, channels, height, width;
  bool channels_last;
  FeatureType type;
};

// Room for the sums of the parts of the pixels, from batch, channels, height and width.
int64_t depthwise_backward_parts(const DepthwiseBackwardCuda& arguments);

// Queues the kernels on the stream; cudaErrorInvalidConfiguration if the shape needs more than 2^31 - 1
// blocks, or for 2^28 channels, rows or columns and more.
cudaError_t launch_depthwise_conv3x3_backward(const DepthwiseBackwardCuda& arguments, cudaStream_t stream);

}  // namespace aicr
