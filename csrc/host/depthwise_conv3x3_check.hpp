// What depthwise_conv3x3_backward asks of its arguments.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_depthwise_conv3x3_backward(const torch::stable::Tensor& grad,
                                             const torch::stable::Tensor& x,
                                             const torch::stable::Tensor& weight) {
  constexpr const char* kOp = "depthwise_conv3x3_backward";
  STD_TORCH_CHECK(x.dim() == 4, kOp, ": x must be (B, C, H, W), got ", x.dim(), " dimension(s)");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == x.size(1) && weight.size(1) == 1 &&
                      weight.size(2) == 3 && weight.size(3) == 3,
                  kOp, ": weight must have the shape (", x.size(1), ", 1, 3, 3), got ", weight.dim(),
                  " dimension(s)", weight.dim() == 4 ? " of other sizes" : "");
  check_weight_dtype_and_device(kOp, "weight", weight, "x", x);
  check_like(kOp, "grad", grad, "x", x);
}

}  // namespace aicr
