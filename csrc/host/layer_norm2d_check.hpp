// What layer_norm2d and its backward ask of their arguments, on every device.
#pragma once

#include <cmath>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace aicr {

inline void check_layer_norm2d_weight(const char* name, const torch::stable::Tensor& x,
                                      const torch::stable::Tensor& weight) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(weight.dim() == 1 && weight.size(0) == x.size(1), "layer_norm2d: ", name,
                  " must have the shape (", x.size(1), ",), got ", weight.dim(), " dimension(s)",
                  weight.dim() == 1 ? " of another size" : "");
  STD_TORCH_CHECK(weight.scalar_type() == x.scalar_type() || weight.scalar_type() == ScalarType::Float,
                  "layer_norm2d: ", name, " must be float32 or of the dtype of x, got ", weight.scalar_type(),
                  " with x ", x.scalar_type());
  STD_TORCH_CHECK(weight.device() == x.device(), "layer_norm2d: ", name, " must be on the device of x");
}

inline void check_layer_norm2d(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                               double eps) {
  STD_TORCH_CHECK(x.dim() == 4, "layer_norm2d: x must be (B, C, H, W), got ", x.dim(), " dimension(s)");
  STD_TORCH_CHECK(std::isfinite(eps) && eps >= 0, "layer_norm2d: eps must be finite and at least 0, got ",
                  eps);
  check_layer_norm2d_weight("weight", x, weight);
}

inline void check_layer_norm2d_grad(const torch::stable::Tensor& grad, const torch::stable::Tensor& x) {
  bool same = grad.dim() == 4;
  for (int axis = 0; same && axis < 4; ++axis) same = grad.size(axis) == x.size(axis);
  STD_TORCH_CHECK(same, "layer_norm2d_backward: grad must have the shape of x");
  STD_TORCH_CHECK(grad.scalar_type() == x.scalar_type(),
                  "layer_norm2d_backward: grad must be of the dtype of x, ", x.scalar_type(), ", got ",
                  grad.scalar_type());
  STD_TORCH_CHECK(grad.device() == x.device(), "layer_norm2d_backward: grad must be on the device of x");
}

}  // namespace aicr
