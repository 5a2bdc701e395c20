// Host side of the operators of a coding step on CUDA: checks, device, stream, launch. Never waits for the
// device.
#include "cuda/latent_ops.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/latent_ops.cuh"
#include "host/cuda_stream.hpp"
#include "host/integer_shape.hpp"
#include "host/latent_check.hpp"
#include "host/latent_step.hpp"

namespace aicr {

using torch::stable::contiguous;

Tensor latent_scale_index_cuda(Tensor parameters, int64_t channels, bool second) {
  check_latent_scale_index(parameters, channels);
  const CudaDeviceGuard guard(parameters.get_device_index());
  DenseLatentStep step(parameters, channels, second);
  step.set_parameters(parameters);
  Tensor index = of_step(parameters, channels, ScalarType::Byte);
  check_launch("latent_scale_index",
               launch_latent_scale_index(step.task, pixels_of(parameters), index.mutable_data_ptr<uint8_t>(),
                                         current_cuda_stream(parameters.get_device_index())));
  return index;
}

std::tuple<Tensor, Tensor> latent_quantise_cuda(Tensor y, Tensor parameters, Tensor exponent,
                                                std::optional<Tensor> step, bool second,
                                                std::optional<Tensor> zones, std::optional<Tensor> noise,
                                                std::optional<Tensor> variances) {
  check_latent_quantise(y, parameters, exponent, step, zones, noise, variances);
  const CudaDeviceGuard guard(y.get_device_index());
  const int64_t channels = y.size(3);
  DenseLatentStep dense(y, channels, second);
  dense.set_parameters(parameters);
  dense.set_exponent(exponent);
  dense.set_step(step);
  dense.set_zones(zones);
  dense.set_noise(noise, variances);
  const Tensor dense_y = contiguous(y);
  Tensor symbols = of_step(y, channels, ScalarType::Short), index = of_step(y, channels, ScalarType::Byte);
  check_launch("latent_quantise",
               launch_latent_quantise(dense.task, pixels_of(y), dense_y.const_data_ptr<float>(),
                                      symbols.mutable_data_ptr<int16_t>(), index.mutable_data_ptr<uint8_t>(),
                                      current_cuda_stream(y.get_device_index())));
  return {symbols, index};
}

Tensor latent_accept_cuda(Tensor symbols, Tensor parameters, Tensor exponent, std::optional<Tensor> values) {
  check_latent_accept(symbols, parameters, exponent, values);
  const CudaDeviceGuard guard(symbols.get_device_index());
  const int64_t channels = exponent.size(0);
  DenseLatentStep dense(parameters, channels, values.has_value());
  dense.set_parameters(parameters);
  dense.set_exponent(exponent);
  const Tensor dense_symbols = contiguous(symbols);
  std::optional<Tensor> dense_values;
  if (values.has_value()) dense_values = contiguous(*values);
  Tensor out = latent_map(parameters, channels, ScalarType::Int);
  check_launch(
      "latent_accept",
      launch_latent_accept(dense.task, pixels_of(parameters), dense_symbols.const_data_ptr<int16_t>(),
                           values.has_value() ? dense_values->const_data_ptr<int32_t>() : nullptr,
                           out.mutable_data_ptr<int32_t>(), current_cuda_stream(symbols.get_device_index())));
  return out;
}

Tensor latent_dequantise_cuda(Tensor values, Tensor exponent, std::optional<Tensor> step) {
  check_latent_dequantise(values, exponent, step);
  const CudaDeviceGuard guard(values.get_device_index());
  const int64_t channels = values.size(3);
  DenseLatentStep dense(values, channels, false);
  dense.set_exponent(exponent);
  dense.set_step(step);
  const Tensor dense_values = contiguous(values);
  Tensor out = latent_map(values, channels, ScalarType::Float);
  check_launch("latent_dequantise",
               launch_latent_dequantise(dense.task, pixels_of(values), dense_values.const_data_ptr<int32_t>(),
                                        out.mutable_data_ptr<float>(),
                                        current_cuda_stream(values.get_device_index())));
  return out;
}

}  // namespace aicr
