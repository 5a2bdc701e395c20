#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/layer_norm_conv1x1.py for the arguments. Without second_weight the second result has no
// elements.
std::tuple<torch::stable::Tensor, torch::stable::Tensor> layer_norm_conv1x1_cuda(
    torch::stable::Tensor x, torch::stable::Tensor norm_weight,
    std::optional<torch::stable::Tensor> norm_bias, torch::stable::Tensor weight,
    std::optional<torch::stable::Tensor> bias, std::optional<torch::stable::Tensor> second_weight,
    std::optional<torch::stable::Tensor> second_bias, bool subtract_mean, double eps);

}  // namespace aicr
