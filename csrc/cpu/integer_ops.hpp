// The integer operators on the CPU, as torch calls them.
#pragma once

#include <optional>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

using torch::stable::Tensor;

Tensor integer_linear_cpu(Tensor x, Tensor weight, Tensor bias, Tensor shift, Tensor slope,
                          std::optional<Tensor> residual, std::optional<Tensor> residual_shift);
Tensor integer_depthwise_cpu(Tensor x, Tensor weight, Tensor bias, Tensor shift);
Tensor integer_sum_cpu(Tensor x);
Tensor integer_gate_cpu(Tensor x, int64_t shift);
Tensor integer_asinh_cpu(Tensor value, Tensor exponent, Tensor table);

}  // namespace aicr
