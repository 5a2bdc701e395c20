// What layer_norm2d and its backward ask of their arguments, on every device.
#pragma once

#include <cmath>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_layer_norm2d_weight(const char* name, const torch::stable::Tensor& x,
                                      const torch::stable::Tensor& weight) {
  check_vector("layer_norm2d", name, weight, x.size(1), "x", x);
}

inline void check_layer_norm2d(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                               double eps) {
  STD_TORCH_CHECK(x.dim() == 4, "layer_norm2d: x must be (B, C, H, W), got ", x.dim(), " dimension(s)");
  STD_TORCH_CHECK(std::isfinite(eps) && eps >= 0, "layer_norm2d: eps must be finite and at least 0, got ",
                  eps);
  check_layer_norm2d_weight("weight", x, weight);
}

inline void check_layer_norm2d_grad(const torch::stable::Tensor& grad, const torch::stable::Tensor& x) {
  check_like("layer_norm2d_backward", "grad", grad, "x", x);
}

}  // namespace aicr
