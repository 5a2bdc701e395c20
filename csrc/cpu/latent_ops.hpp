// The operators of a coding step on the CPU, as torch calls them.
#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

using torch::stable::Tensor;

Tensor latent_scale_index_cpu(Tensor parameters, int64_t channels, bool second);
std::tuple<Tensor, Tensor> latent_quantise_cpu(Tensor y, Tensor parameters, Tensor exponent,
                                               std::optional<Tensor> step, bool second,
                                               std::optional<Tensor> zones, std::optional<Tensor> noise,
                                               std::optional<Tensor> variances);
Tensor latent_accept_cpu(Tensor symbols, Tensor parameters, Tensor exponent, std::optional<Tensor> values);
Tensor latent_dequantise_cpu(Tensor values, Tensor exponent, std::optional<Tensor> step);

}  // namespace aicr
