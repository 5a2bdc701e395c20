// The launch interface of gated_depthwise_conv3x3 on CUDA. No torch here; gated_depthwise_conv3x3.cpp calls
// it.
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

}  // namespace aicr
