#pragma once

#include <optional>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/layer_norm2d.py for the arguments.
torch::stable::Tensor layer_norm2d_cuda(torch::stable::Tensor x, torch::stable::Tensor weight,
                                        std::optional<torch::stable::Tensor> bias, bool subtract_mean,
                                        double eps);

}  // namespace aicr
