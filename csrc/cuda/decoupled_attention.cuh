// The launch interface of decoupled_attention and its derivative on CUDA. No torch here;
// decoupled_attention.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/feature_type.cuh"

namespace aicr {

// Dense tensors of batch x channels x height x width, in memory channel-minor (channels_last) or as planes.
struct DecoupledAttentionCuda {
  const void* attn;
  const void* value;
  void* out;
  const void* weight_row;  // [channels][taps], float32 or of the feature type
  const void* weight_col;
  bool weight_row_is_float32, weight_col_is_float32;
  int64_t batch, channels, height, width;
  int taps;  // K: 3, 5 or 7
  bool channels_last;
  FeatureType type;
};

// Queues the kernel on the stream; cudaErrorInvalidConfiguration if the shape needs more than 2^31 - 1
// blocks.
cudaError_t launch_decoupled_attention(const DecoupledAttentionCuda& arguments, cudaStream_t stream);

// Likewise, with the gradient of the result and room for those of all arguments.
struct DecoupledAttentionBackwardCuda {
  const void* grad;
  const void* attn;
  const void* value;
  void* grad_attn;
  void* grad_value;
  const void* weight_row;
  const void* weight_col;
  float* grad_weight_row;  // [channels][taps]
  float* grad_weight_col;
  float* parts;  // decoupled_attention_backward_parts() of them
  bool weight_row_is_float32, weight_col_is_float32;
  int64_t batch, channels, height, width;
  int taps;
  bool channels_last;
  FeatureType type;
};

// Room for the sums of the blocks, from sizes, taps and layout.
int64_t decoupled_attention_backward_parts(const DecoupledAttentionBackwardCuda& arguments);

// Queues the kernels on the stream; cudaErrorInvalidConfiguration as above.
cudaError_t launch_decoupled_attention_backward(const DecoupledAttentionBackwardCuda& arguments,
                                                cudaStream_t stream);

}  // namespace aicr
