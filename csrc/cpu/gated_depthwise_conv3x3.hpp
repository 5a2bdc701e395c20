#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/depthwise_conv3x3.py for the arguments.
torch::stable::Tensor depthwise_conv3x3_cpu(torch::stable::Tensor x, torch::stable::Tensor weight,
                                            std::optional<torch::stable::Tensor> bias);

// See aicr_ext/ops/gated_depthwise_conv3x3.py for the arguments.
torch::stable::Tensor gated_depthwise_conv3x3_cpu(torch::stable::Tensor x, torch::stable::Tensor weight,
                                                  std::optional<torch::stable::Tensor> bias, bool gelu);

std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor>
gated_depthwise_conv3x3_backward_cpu(torch::stable::Tensor grad, torch::stable::Tensor x,
                                     torch::stable::Tensor weight, std::optional<torch::stable::Tensor> bias,
                                     bool gelu);

}  // namespace aicr
