// What gelu_gate and its backward ask of their arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace aicr {

inline void check_gelu_gate(const torch::stable::Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, "gelu_gate: x must be (B, 2C, H, W), got ", x.dim(), " dimension(s)");
  STD_TORCH_CHECK(x.size(1) % 2 == 0, "gelu_gate: x must have an even number of channels, got ", x.size(1));
}

inline void check_gelu_gate_grad(const torch::stable::Tensor& grad, const torch::stable::Tensor& x) {
  bool same = grad.dim() == 4 && grad.size(1) == x.size(1) / 2;
  for (int axis = 0; same && axis < 4; ++axis) same = axis == 1 || grad.size(axis) == x.size(axis);
  STD_TORCH_CHECK(same, "gelu_gate_backward: grad must have the shape of x with half its channels");
  STD_TORCH_CHECK(grad.scalar_type() == x.scalar_type(),
                  "gelu_gate_backward: grad must be of the dtype of x, ", x.scalar_type(), ", got ",
                  grad.scalar_type());
  STD_TORCH_CHECK(grad.device() == x.device(), "gelu_gate_backward: grad must be on the device of x");
}

}  // namespace aicr
