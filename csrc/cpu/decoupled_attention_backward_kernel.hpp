// The compute interface of decoupled_attention_backward on the CPU. No torch here;
// decoupled_attention_backward.cpp calls it.
#pragma once

#include <cstdint>

#include "cpu/decoupled_attention_kernel.hpp"

namespace aicr {

// Number of pieces the work falls into: a function of the shape only, so that no result depends on the
// threads.
int64_t decoupled_attention_backward_pieces(const DecoupledAttentionShape& shape);

// Values of one piece's part of the gradients of the weights: [2][taps][channels], row weight first; as
// planes, of which a piece has one, [2][taps].
int64_t decoupled_attention_backward_part(const DecoupledAttentionShape& shape);

// The channel of the part of this piece; as planes only.
int64_t decoupled_attention_backward_channel(const DecoupledAttentionShape& shape, int64_t piece);

// Pieces first <= i < last: their places in grad_attn and grad_value, and their rows of parts [pieces][part].
// Weights are [channels][taps] in the accumulation type.
// T, Acc: (float, float), (BFloat16, float), (Half, float), (double, double).
template <typename T, typename Acc>
void decoupled_attention_backward_run(const DecoupledAttentionShape& shape, const T* grad, const T* attn,
                                      const T* value, const Acc* weight_row, const Acc* weight_col,
                                      T* grad_attn, T* grad_value, Acc* parts, int64_t first, int64_t last);

}  // namespace aicr
