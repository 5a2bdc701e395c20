#pragma once

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/fold_channel_attention.py for the arguments.
torch::stable::Tensor fold_channel_attention_cuda(torch::stable::Tensor scores, torch::stable::Tensor q_norm,
                                                  torch::stable::Tensor k_norm,
                                                  torch::stable::Tensor temperature,
                                                  torch::stable::Tensor project_out);

}  // namespace aicr
