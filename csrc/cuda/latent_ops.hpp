// The operators of a coding step on CUDA, as torch calls them.
#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

using torch::stable::Tensor;

Tensor latent_scale_index_cuda(Tensor parameters, int64_t channels, bool second);
std::tuple<Tensor, Tensor> latent_quantise_cuda(Tensor y, Tensor parameters, Tensor exponent,
                                                std::optional<Tensor> step, bool second,
                                                std::optional<Tensor> zones, std::optional<Tensor> noise,
                                                std::optional<Tensor> variances);
Tensor latent_accept_cuda(Tensor symbols, Tensor parameters, Tensor exponent, std::optional<Tensor> values);
Tensor latent_dequantise_cuda(Tensor values, Tensor exponent, std::optional<Tensor> step);

}  // namespace aicr
