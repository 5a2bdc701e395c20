// The compute interface of the derivatives of gated_depthwise_conv3x3 on the CPU. No torch here;
// gated_depthwise_conv3x3.cpp calls it.
#pragma once

#include <cstdint>

#include "cpu/gated_depthwise_conv3x3_kernel.hpp"

namespace aicr {

// Number of pieces the work falls into: a function of the shape only, so that no result depends on the
// threads.
int64_t gated_depthwise_backward_pieces(const GatedDepthwiseShape& shape);

// Channels whose terms' gradients a piece has a part of: all, or of planes those of gate and value.
int64_t gated_depthwise_backward_channels(const GatedDepthwiseShape& shape);

// The n-th of them.
int64_t gated_depthwise_backward_channel(const GatedDepthwiseShape& shape, int64_t piece, int64_t n);

// Pieces first <= i < last: their places in grad_x, and their rows of parts [pieces][10][channels], the
// gradients of weight and bias. flipped: terms of the weight from its last tap to its first, without bias.
// T, Acc: (float, float), (BFloat16, float), (Half, float), (double, double).
template <typename T, typename Acc>
void gated_depthwise_backward_run(const GatedDepthwiseShape& shape, const T* grad, const T* x,
                                  const Acc* terms, const Acc* flipped, T* grad_x, Acc* parts, int64_t first,
                                  int64_t last);

}  // namespace aicr
