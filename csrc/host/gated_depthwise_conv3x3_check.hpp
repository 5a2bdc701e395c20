// What gated_depthwise_conv3x3 and its backward ask of their arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_gated_depthwise_conv3x3(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                                          const torch::stable::Tensor* bias) {
  constexpr const char* kOp = "gated_depthwise_conv3x3";
  STD_TORCH_CHECK(x.dim() == 4, kOp, ": x must be (B, C, H, W), got ", x.dim(), " dimension(s)");
  STD_TORCH_CHECK(x.size(1) % 2 == 0, kOp, ": x must have an even number of channels, got ", x.size(1));
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == x.size(1) && weight.size(1) == 1 &&
                      weight.size(2) == 3 && weight.size(3) == 3,
                  kOp, ": weight must have the shape (", x.size(1), ", 1, 3, 3), got ", weight.dim(),
                  " dimension(s)", weight.dim() == 4 ? " of other sizes" : "");
  check_weight_dtype_and_device(kOp, "weight", weight, "x", x);
  if (bias != nullptr) {
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == x.size(1), kOp, ": bias must have the shape (",
                    x.size(1), ",), got ", bias->dim(), " dimension(s)",
                    bias->dim() == 1 ? " of another size" : "");
    check_weight_dtype_and_device(kOp, "bias", *bias, "x", x);
  }
}

inline void check_gated_depthwise_conv3x3_grad(const torch::stable::Tensor& grad,
                                               const torch::stable::Tensor& x) {
  bool same = grad.dim() == 4 && grad.size(1) == x.size(1) / 2;
  for (int axis = 0; same && axis < 4; ++axis) same = axis == 1 || grad.size(axis) == x.size(axis);
  STD_TORCH_CHECK(same, "gated_depthwise_conv3x3_backward: grad must have the shape of the result");
  check_dtype_and_device("gated_depthwise_conv3x3_backward", "grad", grad, "x", x);
}

}  // namespace aicr
