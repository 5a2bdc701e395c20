// What gated_depthwise_conv3x3 and its backward ask of their arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/depthwise_conv3x3_check.hpp"
#include "host/like.hpp"

namespace aicr {

inline void check_gated_depthwise_conv3x3(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                                          const torch::stable::Tensor* bias) {
  constexpr const char* kOp = "gated_depthwise_conv3x3";
  STD_TORCH_CHECK(x.dim() != 4 || x.size(1) % 2 == 0, kOp, ": x must have an even number of channels, got ",
                  x.size(1));
  check_depthwise_conv3x3(kOp, x, weight, bias);
}

inline void check_gated_depthwise_conv3x3_grad(const torch::stable::Tensor& grad,
                                               const torch::stable::Tensor& x) {
  bool same = grad.dim() == 4 && grad.size(1) == x.size(1) / 2;
  for (int axis = 0; same && axis < 4; ++axis) same = axis == 1 || grad.size(axis) == x.size(axis);
  STD_TORCH_CHECK(same, "gated_depthwise_conv3x3_backward: grad must have the shape of the result");
  check_dtype_and_device("gated_depthwise_conv3x3_backward", "grad", grad, "x", x);
}

}  // namespace aicr
