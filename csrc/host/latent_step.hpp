// What the operators of a coding step hand to their kernels, on every device.
#pragma once

#include <optional>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "common/latent.hpp"

namespace aicr {

// The tensors of a step, dense, and where they lie.
struct DenseLatentStep {
  std::optional<torch::stable::Tensor> parameters, exponent, step, zones, noise, variances;
  LatentStep task{};

  // `map` has the pictures, rows and columns.
  DenseLatentStep(const torch::stable::Tensor& map, int64_t channels, bool second) {
    task.height = map.size(1);
    task.width = map.size(2);
    task.channels = channels;
    task.second = second;
  }

  void set_parameters(const torch::stable::Tensor& given) {
    parameters = torch::stable::contiguous(given);
    task.parameter_channels = given.size(3);
    task.parameters = parameters->const_data_ptr<int16_t>();
  }

  void set_exponent(const torch::stable::Tensor& given) {
    exponent = torch::stable::contiguous(given);
    task.exponent = exponent->const_data_ptr<int32_t>();
  }

  void set_step(const std::optional<torch::stable::Tensor>& given) {
    if (!given.has_value()) return;
    step = torch::stable::contiguous(*given);
    task.step_channels = given->size(3);
    task.step = step->const_data_ptr<int16_t>();
  }

  void set_zones(const std::optional<torch::stable::Tensor>& given) {
    if (!given.has_value()) return;
    zones = torch::stable::contiguous(*given);
    task.zones = zones->const_data_ptr<float>();
  }

  void set_noise(const std::optional<torch::stable::Tensor>& given,
                 const std::optional<torch::stable::Tensor>& of_levels) {
    if (!given.has_value()) return;
    noise = torch::stable::contiguous(*given);
    variances = torch::stable::contiguous(*of_levels);
    task.noise = noise->const_data_ptr<float>();
    task.variances = variances->const_data_ptr<float>();
  }
};

// A tensor for what a step has of each pixel of `map`.
inline torch::stable::Tensor of_step(const torch::stable::Tensor& map, int64_t channels,
                                     torch::headeronly::ScalarType type) {
  const std::vector<int64_t> size = {map.size(0) * map.size(1) * map.size(2) * (channels / 2)};
  return torch::stable::empty(size, type, std::nullopt, map.device());
}

// A map of the pictures, rows and columns of `map`.
inline torch::stable::Tensor latent_map(const torch::stable::Tensor& map, int64_t channels,
                                        torch::headeronly::ScalarType type) {
  const std::vector<int64_t> size = {map.size(0), map.size(1), map.size(2), channels};
  return torch::stable::empty(size, type, std::nullopt, map.device());
}

}  // namespace aicr
