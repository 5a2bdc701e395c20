// What layer_norm_conv1x1 asks of its arguments, on every device, and pointwise_tiles, too: `op` is the name
// in messages.
#pragma once

#include <cmath>
#include <optional>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_projection(const char* op, const char* weight_name, const torch::stable::Tensor& weight,
                             const char* bias_name, const std::optional<torch::stable::Tensor>& bias,
                             const torch::stable::Tensor& x) {
  STD_TORCH_CHECK(
      weight.dim() == 4 && weight.size(1) == x.size(1) && weight.size(2) == 1 && weight.size(3) == 1, op,
      ": ", weight_name, " must have the shape (D, ", x.size(1), ", 1, 1), got ", weight.dim(),
      " dimension(s)", weight.dim() == 4 ? " of other sizes" : "");
  check_weight_dtype_and_device(op, weight_name, weight, "x", x);
  if (bias) check_vector(op, bias_name, *bias, weight.size(0), "x", x);
}

inline void check_map(const char* op, const torch::stable::Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, op, ": x must be (B, C, H, W), got ", x.dim(), " dimension(s)");
}

inline void check_norm(const char* op, const torch::stable::Tensor& x,
                       const torch::stable::Tensor& norm_weight,
                       const std::optional<torch::stable::Tensor>& norm_bias, double eps) {
  STD_TORCH_CHECK(std::isfinite(eps) && eps >= 0, op, ": eps must be finite and at least 0, got ", eps);
  check_vector(op, "norm_weight", norm_weight, x.size(1), "x", x);
  if (norm_bias) check_vector(op, "norm_bias", *norm_bias, x.size(1), "x", x);
}

inline void check_projections(const char* op, const torch::stable::Tensor& x,
                              const torch::stable::Tensor& weight,
                              const std::optional<torch::stable::Tensor>& bias,
                              const std::optional<torch::stable::Tensor>& second_weight,
                              const std::optional<torch::stable::Tensor>& second_bias) {
  check_projection(op, "weight", weight, "bias", bias, x);
  if (second_weight) {
    check_projection(op, "second_weight", *second_weight, "second_bias", second_bias, x);
  } else {
    STD_TORCH_CHECK(!second_bias, op, ": second_bias is given without second_weight");
  }
}

inline void check_layer_norm_conv1x1(const torch::stable::Tensor& x, const torch::stable::Tensor& norm_weight,
                                     const std::optional<torch::stable::Tensor>& norm_bias,
                                     const torch::stable::Tensor& weight,
                                     const std::optional<torch::stable::Tensor>& bias,
                                     const std::optional<torch::stable::Tensor>& second_weight,
                                     const std::optional<torch::stable::Tensor>& second_bias, double eps) {
  constexpr const char* kOp = "layer_norm_conv1x1";
  check_map(kOp, x);
  check_norm(kOp, x, norm_weight, norm_bias, eps);
  check_projections(kOp, x, weight, bias, second_weight, second_bias);
}

}  // namespace aicr
