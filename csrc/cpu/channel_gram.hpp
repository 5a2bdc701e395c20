#pragma once

#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/channel_gram.py for the arguments.
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> channel_gram_cpu(
    torch::stable::Tensor q, torch::stable::Tensor k, int64_t groups);

}  // namespace aicr
