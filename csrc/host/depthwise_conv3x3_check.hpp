// What depthwise_conv3x3 and its backward ask of their arguments.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

// op: the name in messages.
inline void check_depthwise_conv3x3(const char* op, const torch::stable::Tensor& x,
                                    const torch::stable::Tensor& weight, const torch::stable::Tensor* bias) {
  STD_TORCH_CHECK(x.dim() == 4, op, ": x must be (B, C, H, W), got ", x.dim(), " dimension(s)");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == x.size(1) && weight.size(1) == 1 &&
                      weight.size(2) == 3 && weight.size(3) == 3,
                  op, ": weight must have the shape (", x.size(1), ", 1, 3, 3), got ", weight.dim(),
                  " dimension(s)", weight.dim() == 4 ? " of other sizes" : "");
  check_weight_dtype_and_device(op, "weight", weight, "x", x);
  if (bias != nullptr) check_vector(op, "bias", *bias, x.size(1), "x", x);
}

inline void check_depthwise_conv3x3_backward(const torch::stable::Tensor& grad,
                                             const torch::stable::Tensor& x,
                                             const torch::stable::Tensor& weight) {
  check_depthwise_conv3x3("depthwise_conv3x3_backward", x, weight, nullptr);
  check_like("depthwise_conv3x3_backward", "grad", grad, "x", x);
}

}  // namespace aicr
