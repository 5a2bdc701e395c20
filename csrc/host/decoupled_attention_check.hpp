// What decoupled_attention asks of its arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace aicr {

inline void check_decoupled_attention_weight(const char* name, const torch::stable::Tensor& attn,
                                             const torch::stable::Tensor& weight, int tap_axis) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == attn.size(1) && weight.size(1) == 1 &&
                      weight.size(5 - tap_axis) == 1,
                  "decoupled_attention: ", name, " must have the shape (", attn.size(1),
                  tap_axis == 3 ? ", 1, 1, K)" : ", 1, K, 1)", ", got ", weight.dim(), " dimension(s)",
                  weight.dim() == 4 ? " of other sizes" : "");
  const int64_t taps = weight.size(tap_axis);
  STD_TORCH_CHECK(taps == 3 || taps == 5 || taps == 7, "decoupled_attention: ", name,
                  " must have 3, 5 or 7 taps, got ", taps);
  STD_TORCH_CHECK(weight.scalar_type() == attn.scalar_type() || weight.scalar_type() == ScalarType::Float,
                  "decoupled_attention: ", name, " must be float32 or of the dtype of attn, got ",
                  weight.scalar_type(), " with attn ", attn.scalar_type());
  STD_TORCH_CHECK(weight.device() == attn.device(), "decoupled_attention: ", name,
                  " must be on the device of attn");
}

inline void check_decoupled_attention(const torch::stable::Tensor& attn, const torch::stable::Tensor& value,
                                      const torch::stable::Tensor& weight_row,
                                      const torch::stable::Tensor& weight_col) {
  STD_TORCH_CHECK(attn.dim() == 4, "decoupled_attention: attn must be (B, C, H, W), got ", attn.dim(),
                  " dimension(s)");
  bool same = value.dim() == 4;
  for (int axis = 0; same && axis < 4; ++axis) same = value.size(axis) == attn.size(axis);
  STD_TORCH_CHECK(same, "decoupled_attention: value must have the shape of attn");
  STD_TORCH_CHECK(value.scalar_type() == attn.scalar_type(),
                  "decoupled_attention: value must be of the dtype of attn, ", attn.scalar_type(), ", got ",
                  value.scalar_type());
  STD_TORCH_CHECK(value.device() == attn.device(),
                  "decoupled_attention: value must be on the device of attn");
  check_decoupled_attention_weight("weight_row", attn, weight_row, 3);
  check_decoupled_attention_weight("weight_col", attn, weight_col, 2);
  STD_TORCH_CHECK(weight_row.size(3) == weight_col.size(2),
                  "decoupled_attention: weight_row and weight_col must have one number of taps, got ",
                  weight_row.size(3), " and ", weight_col.size(2));
}

inline void check_decoupled_attention_grad(const torch::stable::Tensor& grad,
                                           const torch::stable::Tensor& attn) {
  bool same = grad.dim() == 4;
  for (int axis = 0; same && axis < 4; ++axis) same = grad.size(axis) == attn.size(axis);
  STD_TORCH_CHECK(same, "decoupled_attention_backward: grad must have the shape of attn");
  STD_TORCH_CHECK(grad.scalar_type() == attn.scalar_type(),
                  "decoupled_attention_backward: grad must be of the dtype of attn, ", attn.scalar_type(),
                  ", got ", grad.scalar_type());
  STD_TORCH_CHECK(grad.device() == attn.device(),
                  "decoupled_attention_backward: grad must be on the device of attn");
}

}  // namespace aicr
