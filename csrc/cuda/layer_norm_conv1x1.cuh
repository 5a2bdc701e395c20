// The launch interface of layer_norm_conv1x1 on CUDA. No torch here; layer_norm_conv1x1.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

// So many channels of a tile of pixels fit into the shared memory of a block, on every GPU aimed at.
// aicr_ext/ops/layer_norm_conv1x1.py says the same.
constexpr int64_t kMostNormalisedChannels = 384;

// A 1x1 convolution of the norm of x.
struct NormalisedProjection {
  const void* weight;  // [outputs][channels], of the feature type
  const void* bias;    // [outputs], float32 or of the feature type, or null
  void* out;           // batch x outputs x pixels, laid out as x is
  bool bias_is_float32;
  int64_t outputs;
};

// x is dense, batch x channels x pixels, in memory channel-minor (channels_last) or as planes. There are one
// or two projections; the second may have no outputs.
struct LayerNormConv1x1Cuda {
  const void* x;
  const void* norm_weight;  // [channels], float32 or of the feature type
  const void* norm_bias;    // likewise, or null
  bool norm_weight_is_float32, norm_bias_is_float32;
  NormalisedProjection first, second;
  int64_t batch, channels, pixels;
  bool channels_last, subtract_mean;
  float eps;
  FeatureType type;
};

// Queues the kernel on the stream; cudaErrorInvalidConfiguration if there are too many channels, or if the
// shape needs more than 2^31 - 1 blocks.
cudaError_t launch_layer_norm_conv1x1(const LayerNormConv1x1Cuda& arguments, cudaStream_t stream);

}  // namespace aicr
