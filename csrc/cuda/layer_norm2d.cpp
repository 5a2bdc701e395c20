// Host side of layer_norm2d and its derivative on CUDA: checks, device, stream, launch. Never waits for the
// device.
#include "cuda/layer_norm2d.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/layer_norm2d.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/layer_norm2d_check.hpp"
#include "host/layout.hpp"

namespace aicr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor layer_norm2d_cuda(Tensor x, Tensor weight, std::optional<Tensor> bias, bool subtract_mean,
                         double eps) {
  check_layer_norm2d(x, weight, eps);
  if (bias) check_layer_norm2d_weight("bias", x, *bias);
  const FeatureType type = cuda_feature_type("layer_norm2d", "x", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense = in_layout(x, channels_last), dense_weight = torch::stable::contiguous(weight);
  const Tensor dense_bias = torch::stable::contiguous(bias ? *bias : weight);
  Tensor out = torch::stable::empty_like(dense);

  LayerNorm2dCuda arguments{};
  arguments.x = dense.const_data_ptr();
  arguments.out = out.mutable_data_ptr();
  arguments.weight = dense_weight.const_data_ptr();
  arguments.bias = bias ? dense_bias.const_data_ptr() : nullptr;
  arguments.weight_is_float32 = weight.scalar_type() == ScalarType::Float;
  arguments.bias_is_float32 = dense_bias.scalar_type() == ScalarType::Float;
  arguments.batch = x.size(0);
  arguments.channels = x.size(1);
  arguments.pixels = x.size(2) * x.size(3);
  arguments.channels_last = channels_last;
  arguments.subtract_mean = subtract_mean;
  arguments.eps = static_cast<float>(eps);
  arguments.type = type;
  check_launch("layer_norm2d", launch_layer_norm2d(arguments, current_cuda_stream(x.get_device_index())));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> layer_norm2d_backward_cuda(Tensor grad, Tensor x, Tensor weight,
                                                              bool with_bias, bool subtract_mean,
                                                              double eps) {
  check_layer_norm2d(x, weight, eps);
  check_layer_norm2d_grad(grad, x);
  const FeatureType type = cuda_feature_type("layer_norm2d_backward", "x", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense_x = in_layout(x, channels_last), dense_grad = in_layout(grad, channels_last);
  const Tensor dense_weight = torch::stable::contiguous(weight);
  Tensor grad_x = torch::stable::empty_like(dense_x);
  Tensor grad_weight = torch::stable::new_empty(x, {x.size(1)}, ScalarType::Float);
  Tensor grad_bias = torch::stable::new_empty(x, {with_bias ? x.size(1) : 0}, ScalarType::Float);

  LayerNorm2dBackwardCuda arguments{};
  arguments.grad = dense_grad.const_data_ptr();
  arguments.x = dense_x.const_data_ptr();
  arguments.grad_x = grad_x.mutable_data_ptr();
  arguments.weight = dense_weight.const_data_ptr();
  arguments.grad_weight = grad_weight.mutable_data_ptr<float>();
  arguments.grad_bias = with_bias ? grad_bias.mutable_data_ptr<float>() : nullptr;
  arguments.weight_is_float32 = weight.scalar_type() == ScalarType::Float;
  arguments.batch = x.size(0);
  arguments.channels = x.size(1);
  arguments.pixels = x.size(2) * x.size(3);
  arguments.channels_last = channels_last;
  arguments.subtract_mean = subtract_mean;
  arguments.eps = static_cast<float>(eps);
  arguments.type = type;
  Tensor statistics = torch::stable::new_empty(x, {arguments.batch, arguments.pixels, 2}, ScalarType::Float);
  Tensor parts = torch::stable::new_empty(x, {layer_norm2d_backward_parts(arguments)}, ScalarType::Float);
  arguments.statistics = statistics.mutable_data_ptr<float>();
  arguments.parts = parts.mutable_data_ptr<float>();
  check_launch("layer_norm2d_backward",
               launch_layer_norm2d_backward(arguments, current_cuda_stream(x.get_device_index())));
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace aicr
