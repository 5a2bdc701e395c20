// The launch interface of depthwise_gram on CUDA. No torch here; depthwise_gram.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

// qk is dense, batch x 2 channels x height x width, queries before keys, in memory channel-minor
// (channels_last) or as planes.
struct DepthwiseGramCuda {
  const void* qk;
  const void* weight;  // [2 channels][9], float32 or of the feature type
  const void* bias;    // [2 channels], likewise, or null
  bool weight_is_float32, bias_is_float32;
  float* parts;   // depthwise_gram_parts() of them
  float* scores;  // [batch][groups][depth][depth], depth = channels / groups
  float* q_norm;  // [batch][channels], and so is k_norm
  float* k_norm;
  int64_t batch, channels, height, width, groups;
  bool channels_last;
  FeatureType type;
};

// Room for the sums of the parts of all pictures, from batch, channels, height, width and groups.
int64_t depthwise_gram_parts(const DepthwiseGramCuda& arguments);

// Queues the kernels on the stream; cudaErrorInvalidConfiguration if the shape needs more than 2^31 - 1
// blocks.
cudaError_t launch_depthwise_gram(const DepthwiseGramCuda& arguments, cudaStream_t stream);

}  // namespace aicr
