// Host side of the operators of a coding step on the CPU: checks and threads.
#include "cpu/latent_ops.hpp"

#include <torch/csrc/stable/ops.h>

#include "cpu/latent_kernel.hpp"
#include "host/integer_shape.hpp"
#include "host/latent_check.hpp"
#include "host/latent_step.hpp"

namespace aicr {
namespace {

using torch::stable::contiguous;

// Calls run(first, last) for pieces of all pixels of `map`.
template <typename Run>
void for_pixels(const Tensor& map, int64_t channels, Run run) {
  constexpr int64_t kNumbers = 1 << 15;  // that make a piece of work
  if (channels == 0) return;
  torch::stable::parallel_for(0, pixels_of(map), kNumbers / channels + 1, run);
}

}  // namespace

Tensor latent_scale_index_cpu(Tensor parameters, int64_t channels, bool second) {
  check_latent_scale_index(parameters, channels);
  DenseLatentStep step(parameters, channels, second);
  step.set_parameters(parameters);
  Tensor index = of_step(parameters, channels, ScalarType::Byte);
  uint8_t* to = index.mutable_data_ptr<uint8_t>();
  for_pixels(parameters, channels,
             [&](int64_t first, int64_t last) { latent_scale_index_run(step.task, to, first, last); });
  return index;
}

std::tuple<Tensor, Tensor> latent_quantise_cpu(Tensor y, Tensor parameters, Tensor exponent,
                                               std::optional<Tensor> step, bool second,
                                               std::optional<Tensor> zones, std::optional<Tensor> noise,
                                               std::optional<Tensor> variances) {
  check_latent_quantise(y, parameters, exponent, step, zones, noise, variances);
  const int64_t channels = y.size(3);
  DenseLatentStep dense(y, channels, second);
  dense.set_parameters(parameters);
  dense.set_exponent(exponent);
  dense.set_step(step);
  dense.set_zones(zones);
  dense.set_noise(noise, variances);
  const Tensor dense_y = contiguous(y);
  Tensor symbols = of_step(y, channels, ScalarType::Short), index = of_step(y, channels, ScalarType::Byte);
  const float* from = dense_y.const_data_ptr<float>();
  int16_t* to = symbols.mutable_data_ptr<int16_t>();
  uint8_t* to_index = index.mutable_data_ptr<uint8_t>();
  for_pixels(y, channels, [&](int64_t first, int64_t last) {
    latent_quantise_run(dense.task, from, to, to_index, first, last);
  });
  return {symbols, index};
}

Tensor latent_accept_cpu(Tensor symbols, Tensor parameters, Tensor exponent, std::optional<Tensor> values) {
  check_latent_accept(symbols, parameters, exponent, values);
  const int64_t channels = exponent.size(0);
  DenseLatentStep dense(parameters, channels, values.has_value());
  dense.set_parameters(parameters);
  dense.set_exponent(exponent);
  const Tensor dense_symbols = contiguous(symbols);
  std::optional<Tensor> dense_values;
  if (values.has_value()) dense_values = contiguous(*values);
  Tensor out = latent_map(parameters, channels, ScalarType::Int);
  const int16_t* from = dense_symbols.const_data_ptr<int16_t>();
  const int32_t* before = values.has_value() ? dense_values->const_data_ptr<int32_t>() : nullptr;
  int32_t* to = out.mutable_data_ptr<int32_t>();
  for_pixels(parameters, channels, [&](int64_t first, int64_t last) {
    latent_accept_run(dense.task, from, before, to, first, last);
  });
  return out;
}

Tensor latent_dequantise_cpu(Tensor values, Tensor exponent, std::optional<Tensor> step) {
  check_latent_dequantise(values, exponent, step);
  const int64_t channels = values.size(3);
  DenseLatentStep dense(values, channels, false);
  dense.set_exponent(exponent);
  dense.set_step(step);
  const Tensor dense_values = contiguous(values);
  Tensor out = latent_map(values, channels, ScalarType::Float);
  const int32_t* from = dense_values.const_data_ptr<int32_t>();
  float* to = out.mutable_data_ptr<float>();
  for_pixels(values, channels,
             [&](int64_t first, int64_t last) { latent_dequantise_run(dense.task, from, to, first, last); });
  return out;
}

}  // namespace aicr
