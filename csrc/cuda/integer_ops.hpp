// The integer operators on CUDA, as torch calls them.
#pragma once

#include <optional>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

using torch::stable::Tensor;

// See aicr_ext/ops/integer.py for the arguments.
Tensor integer_linear_cuda(Tensor x, Tensor weight, Tensor bias, Tensor shift, Tensor slope,
                           std::optional<Tensor> residual, std::optional<Tensor> residual_shift);
Tensor integer_depthwise_cuda(Tensor x, Tensor weight, Tensor bias, Tensor shift);
Tensor integer_sum_cuda(Tensor x);
Tensor integer_gate_cuda(Tensor x, int64_t shift);
Tensor integer_asinh_cuda(Tensor value, Tensor exponent, Tensor table);

}  // namespace aicr
