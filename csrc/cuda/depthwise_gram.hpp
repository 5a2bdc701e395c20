#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/depthwise_gram.py for the arguments.
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> depthwise_gram_cuda(
    torch::stable::Tensor qk, torch::stable::Tensor weight, std::optional<torch::stable::Tensor> bias,
    int64_t groups);

}  // namespace aicr
