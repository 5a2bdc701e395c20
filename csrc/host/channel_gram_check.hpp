// What channel_gram asks of its arguments.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "host/like.hpp"

namespace aicr {

inline void check_channel_gram(const torch::stable::Tensor& q, const torch::stable::Tensor& k,
                               int64_t groups) {
  constexpr const char* kOp = "channel_gram";
  STD_TORCH_CHECK(q.dim() == 4, kOp, ": q must be (B, C, H, W), got ", q.dim(), " dimension(s)");
  STD_TORCH_CHECK(groups > 0 && q.size(1) % groups == 0, kOp, ": groups must divide ", q.size(1),
                  " channels, got ", groups);
  check_like(kOp, "k", k, "q", q);
}

}  // namespace aicr
