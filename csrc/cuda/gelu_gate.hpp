#pragma once

#include <torch/csrc/stable/tensor.h>

namespace aicr {

// See aicr_ext/ops/gelu_gate.py for the arguments.
torch::stable::Tensor gelu_gate_cuda(torch::stable::Tensor x);
torch::stable::Tensor gelu_gate_backward_cuda(torch::stable::Tensor grad, torch::stable::Tensor x);

}  // namespace aicr
