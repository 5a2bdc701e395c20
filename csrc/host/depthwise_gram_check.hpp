// What depthwise_gram asks of its arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_depthwise_gram(const torch::stable::Tensor& qk, const torch::stable::Tensor& weight,
                                 const torch::stable::Tensor* bias, int64_t groups) {
  constexpr const char* kOp = "depthwise_gram";
  STD_TORCH_CHECK(qk.dim() == 4, kOp, ": qk must be (B, 2C, H, W), got ", qk.dim(), " dimension(s)");
  STD_TORCH_CHECK(qk.size(1) % 2 == 0, kOp, ": qk must have an even number of channels, got ", qk.size(1));
  STD_TORCH_CHECK(groups > 0 && qk.size(1) / 2 % groups == 0, kOp, ": groups must divide ", qk.size(1) / 2,
                  " channels, got ", groups);
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == qk.size(1) && weight.size(1) == 1 &&
                      weight.size(2) == 3 && weight.size(3) == 3,
                  kOp, ": weight must have the shape (", qk.size(1), ", 1, 3, 3), got ", weight.dim(),
                  " dimension(s)", weight.dim() == 4 ? " of other sizes" : "");
  check_weight_dtype_and_device(kOp, "weight", weight, "qk", qk);
  if (bias != nullptr) {
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == qk.size(1), kOp, ": bias must have the shape (",
                    qk.size(1), ",), got ", bias->dim(), " dimension(s)",
                    bias->dim() == 1 ? " of another size" : "");
    check_weight_dtype_and_device(kOp, "bias", *bias, "qk", qk);
  }
}

}  // namespace aicr
