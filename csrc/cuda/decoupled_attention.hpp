#pragma once

#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/decoupled_attention.py for the arguments.
torch::stable::Tensor decoupled_attention_cuda(torch::stable::Tensor attn, torch::stable::Tensor value,
                                               torch::stable::Tensor weight_row,
                                               torch::stable::Tensor weight_col);

// The gradients of the four arguments, those of the weights in float32.
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor>
decoupled_attention_backward_cuda(torch::stable::Tensor grad, torch::stable::Tensor attn,
                                  torch::stable::Tensor value, torch::stable::Tensor weight_row,
                                  torch::stable::Tensor weight_col);

}  // namespace aicr
