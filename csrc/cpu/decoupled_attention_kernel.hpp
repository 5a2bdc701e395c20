// The compute interface of decoupled_attention on the CPU. No torch here; decoupled_attention.cpp calls it.
#pragma once

#include <cstdint>

namespace aicr {

// Dense tensors of batch x channels x height x width, in memory either channel-minor (channels_last) or as
// planes.
struct DecoupledAttentionShape {
  int64_t batch, channels, height, width;
  int64_t taps;  // K: 3, 5 or 7
  bool channels_last;
};

// Number of pieces the work falls into: a function of the shape only, so that no result depends on the
// threads.
int64_t decoupled_attention_pieces(const DecoupledAttentionShape& shape);

// Pieces first <= i < last. Weights are [channels][taps] in the accumulation type.
// T, Acc: (float, float), (BFloat16, float), (Half, float), (double, double).
template <typename T, typename Acc>
void decoupled_attention_run(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                             const Acc* weight_row, const Acc* weight_col, T* out, int64_t first,
                             int64_t last);

}  // namespace aicr
