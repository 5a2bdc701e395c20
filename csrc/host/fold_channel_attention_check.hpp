// What fold_channel_attention asks of its arguments, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_norm_of_scores(const char* name, const torch::stable::Tensor& norm,
                                 const torch::stable::Tensor& scores) {
  constexpr const char* kOp = "fold_channel_attention";
  bool same = norm.dim() == 3;
  for (int axis = 0; same && axis < 3; ++axis) same = norm.size(axis) == scores.size(axis);
  STD_TORCH_CHECK(same, kOp, ": ", name, " must have the shape (", scores.size(0), ", ", scores.size(1), ", ",
                  scores.size(2), "), got ", norm.dim(), " dimension(s)",
                  norm.dim() == 3 ? " of other sizes" : "");
  check_dtype_and_device(kOp, name, norm, "scores", scores);
}

inline void check_fold_channel_attention(const torch::stable::Tensor& scores,
                                         const torch::stable::Tensor& q_norm,
                                         const torch::stable::Tensor& k_norm,
                                         const torch::stable::Tensor& temperature,
                                         const torch::stable::Tensor& project_out) {
  constexpr const char* kOp = "fold_channel_attention";
  STD_TORCH_CHECK(scores.dim() == 4 && scores.size(2) == scores.size(3), kOp,
                  ": scores must be (B, groups, C / groups, C / groups), got ", scores.dim(), " dimension(s)",
                  scores.dim() == 4 ? " of other sizes" : "");
  check_norm_of_scores("q_norm", q_norm, scores);
  check_norm_of_scores("k_norm", k_norm, scores);
  const int64_t channels = scores.size(1) * scores.size(2);
  STD_TORCH_CHECK(project_out.dim() == 4 && project_out.size(1) == channels && project_out.size(2) == 1 &&
                      project_out.size(3) == 1,
                  kOp, ": project_out must have the shape (N, ", channels, ", 1, 1), got ", project_out.dim(),
                  " dimension(s)", project_out.dim() == 4 ? " of other sizes" : "");
  STD_TORCH_CHECK(project_out.device() == scores.device(), kOp,
                  ": project_out must be on the device of scores");
  STD_TORCH_CHECK(temperature.numel() == scores.size(1), kOp, ": temperature must have ", scores.size(1),
                  " values, one per group, got ", temperature.numel());
  check_weight_dtype_and_device(kOp, "temperature", temperature, "project_out", project_out);
}

}  // namespace aicr
