#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/pointwise_tiles.py for the arguments. Without second_weight the second result has no
// elements.
std::tuple<torch::stable::Tensor, torch::stable::Tensor> pointwise_tiles_cpu(
    torch::stable::Tensor x, std::optional<torch::stable::Tensor> norm_weight,
    std::optional<torch::stable::Tensor> norm_bias, torch::stable::Tensor weight,
    std::optional<torch::stable::Tensor> bias, std::optional<torch::stable::Tensor> second_weight,
    std::optional<torch::stable::Tensor> second_bias, bool subtract_mean, double eps);

// The same into rows of maps. To one convolution without a norm a map is added, which may be out itself.
void pointwise_tiles_into_cpu(torch::stable::Tensor x, std::optional<torch::stable::Tensor> norm_weight,
                              std::optional<torch::stable::Tensor> norm_bias, torch::stable::Tensor weight,
                              std::optional<torch::stable::Tensor> bias,
                              std::optional<torch::stable::Tensor> second_weight,
                              std::optional<torch::stable::Tensor> second_bias, bool subtract_mean,
                              double eps, std::optional<torch::stable::Tensor> added,
                              torch::stable::Tensor out, std::optional<torch::stable::Tensor> second_out);

}  // namespace aicr
