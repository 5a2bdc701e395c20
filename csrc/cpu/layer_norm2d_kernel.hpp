// The compute interface of layer_norm2d on the CPU. No torch here; layer_norm2d.cpp calls it.
#pragma once

#include <cstdint>

namespace aicr {

// Dense tensors of batch x channels x pixels, in memory either channel-minor (channels_last) or as planes.
struct LayerNorm2dShape {
  int64_t batch, channels, pixels;
  bool channels_last, subtract_mean;
  double eps;
};

// Number of pieces the work falls into: a function of the shape only, so that no result depends on the
// threads.
int64_t layer_norm2d_pieces(const LayerNorm2dShape& shape);

// Pieces first <= i < last. Weights are [channels] in the accumulation type.
// T, Acc: (float, float), (BFloat16, float), (Half, float), (double, double).
template <typename T, typename Acc>
void layer_norm2d_run(const LayerNorm2dShape& shape, const T* x, const Acc* weight, const Acc* bias, T* out,
                      int64_t first, int64_t last);

// The gradient of x, and each piece's part of those of weight and bias: [pieces][channels], of which rows
// first to last - 1 are written. No bias: grad_bias is null.
template <typename T, typename Acc>
void layer_norm2d_backward_run(const LayerNorm2dShape& shape, const T* grad, const T* x, const Acc* weight,
                               T* grad_x, Acc* grad_weight, Acc* grad_bias, int64_t first, int64_t last);

}  // namespace aicr
