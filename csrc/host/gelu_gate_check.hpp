// What gelu_gate and its backward ask of their arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_gelu_gate(const torch::stable::Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, "gelu_gate: x must be (B, 2C, H, W), got ", x.dim(), " dimension(s)");
  STD_TORCH_CHECK(x.size(1) % 2 == 0, "gelu_gate: x must have an even number of channels, got ", x.size(1));
}

inline void check_gelu_gate_grad(const torch::stable::Tensor& grad, const torch::stable::Tensor& x) {
  bool same = grad.dim() == 4 && grad.size(1) == x.size(1) / 2;
  for (int axis = 0; same && axis < 4; ++axis) same = axis == 1 || grad.size(axis) == x.size(axis);
  STD_TORCH_CHECK(same, "gelu_gate_backward: grad must have the shape of x with half its channels");
  check_dtype_and_device("gelu_gate_backward", "grad", grad, "x", x);
}

}  // namespace aicr
