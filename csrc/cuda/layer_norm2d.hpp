#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/layer_norm2d.py for the arguments.
torch::stable::Tensor layer_norm2d_cuda(torch::stable::Tensor x, torch::stable::Tensor weight,
                                        std::optional<torch::stable::Tensor> bias, bool subtract_mean,
                                        double eps);

// The gradients of x, weight and bias; the last has no elements unless with_bias.
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> layer_norm2d_backward_cuda(
    torch::stable::Tensor grad, torch::stable::Tensor x, torch::stable::Tensor weight, bool with_bias,
    bool subtract_mean, double eps);

}  // namespace aicr
