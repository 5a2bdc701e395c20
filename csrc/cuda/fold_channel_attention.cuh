// The launch interface of fold_channel_attention on CUDA. No torch here; fold_channel_attention.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

struct FoldChannelAttentionCuda {
  const float* scores;  // [batch][groups][depth][depth]
  const float* q_norm;  // [batch][groups][depth], and so is k_norm
  const float* k_norm;
  const void* temperature;  // [groups], float32 or of the type of project_out
  const void* project_out;  // [outputs][groups][depth]
  bool temperature_is_float32;
  float* out;  // [batch][outputs][groups][depth]
  int64_t batch, groups, depth, outputs;
  FeatureType type;  // of project_out
};

// Channels of a group beyond which their row sums no longer fit into shared memory.
constexpr int64_t kMostFoldedDepth = 2048;

// Queues the kernel on the stream; cudaErrorInvalidConfiguration if the shape needs more than 2^31 - 1 blocks
// or depth is above kMostFoldedDepth.
cudaError_t launch_fold_channel_attention(const FoldChannelAttentionCuda& arguments, cudaStream_t stream);

}  // namespace aicr
