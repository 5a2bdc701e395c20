#pragma once

#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/depthwise_conv3x3.py for the arguments. The gradients of x, weight and bias; the last has
// no elements unless with_bias.
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor>
depthwise_conv3x3_backward_cuda(torch::stable::Tensor grad, torch::stable::Tensor x,
                                torch::stable::Tensor weight, bool with_bias);

}  // namespace aicr
