// What decoupled_attention asks of its arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_decoupled_attention_weight(const char* name, const torch::stable::Tensor& attn,
                                             const torch::stable::Tensor& weight, int tap_axis) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == attn.size(1) && weight.size(1) == 1 &&
                      weight.size(5 - tap_axis) == 1,
                  "decoupled_attention: ", name, " must have the shape (", attn.size(1),
                  tap_axis == 3 ? ", 1, 1, K)" : ", 1, K, 1)", ", got ", weight.dim(), " dimension(s)",
                  weight.dim() == 4 ? " of other sizes" : "");
  const int64_t taps = weight.size(tap_axis);
  STD_TORCH_CHECK(taps == 3 || taps == 5 || taps == 7, "decoupled_attention: ", name,
                  " must have 3, 5 or 7 taps, got ", taps);
  check_weight_dtype_and_device("decoupled_attention", name, weight, "attn", attn);
}

inline void check_decoupled_attention(const torch::stable::Tensor& attn, const torch::stable::Tensor& value,
                                      const torch::stable::Tensor& weight_row,
                                      const torch::stable::Tensor& weight_col) {
  STD_TORCH_CHECK(attn.dim() == 4, "decoupled_attention: attn must be (B, C, H, W), got ", attn.dim(),
                  " dimension(s)");
  check_like("decoupled_attention", "value", value, "attn", attn);
  check_decoupled_attention_weight("weight_row", attn, weight_row, 3);
  check_decoupled_attention_weight("weight_col", attn, weight_col, 2);
  STD_TORCH_CHECK(weight_row.size(3) == weight_col.size(2),
                  "decoupled_attention: weight_row and weight_col must have one number of taps, got ",
                  weight_row.size(3), " and ", weight_col.size(2));
}

inline void check_decoupled_attention_grad(const torch::stable::Tensor& grad,
                                           const torch::stable::Tensor& attn) {
  check_like("decoupled_attention_backward", "grad", grad, "attn", attn);
}

}  // namespace aicr
