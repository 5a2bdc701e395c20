// Host side of gated_depthwise_conv3x3 and its derivative on CUDA: checks, device, stream, launch. Never
// waits for the device.
#include "cuda/gated_depthwise_conv3x3.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/gated_depthwise_conv3x3.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/gated_depthwise_conv3x3_check.hpp"
#include "host/layout.hpp"

namespace aicr {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor gated_depthwise_conv3x3_cuda(Tensor x, Tensor weight, std::optional<Tensor> bias, bool gelu) {
  check_gated_depthwise_conv3x3(x, weight, bias ? &*bias : nullptr);
  const FeatureType type = cuda_feature_type("gated_depthwise_conv3x3", "x", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense = in_layout(x, channels_last), dense_weight = torch::stable::contiguous(weight);
  const Tensor dense_bias = torch::stable::contiguous(bias ? *bias : weight);
  Tensor out = torch::stable::empty({x.size(0), x.size(1) / 2, x.size(2), x.size(3)}, x.scalar_type(),
                                    std::nullopt, x.device(), std::nullopt,
                                    channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);

  GatedDepthwiseCuda arguments{};
  arguments.x = dense.const_data_ptr();
  arguments.out = out.mutable_data_ptr();
  arguments.weight = dense_weight.const_data_ptr();
  arguments.bias = bias ? dense_bias.const_data_ptr() : nullptr;
  arguments.weight_is_float32 = weight.scalar_type() == ScalarType::Float;
  arguments.bias_is_float32 = dense_bias.scalar_type() == ScalarType::Float;
  arguments.batch = x.size(0);
  arguments.channels = x.size(1) / 2;
  arguments.height = x.size(2);
  arguments.width = x.size(3);
  arguments.channels_last = channels_last;
  arguments.gelu = gelu;
  arguments.type = type;
  check_launch("gated_depthwise_conv3x3",
               launch_gated_depthwise_conv3x3(arguments, current_cuda_stream(x.get_device_index())));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> gated_depthwise_conv3x3_backward_cuda(Tensor grad, Tensor x, Tensor weight,
                                                                         std::optional<Tensor> bias,
                                                                         bool gelu) {
  check_gated_depthwise_conv3x3(x, weight, bias ? &*bias : nullptr);
  check_gated_depthwise_conv3x3_grad(grad, x);
  const FeatureType type = cuda_feature_type("gated_depthwise_conv3x3_backward", "x", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense_x = in_layout(x, channels_last), dense_grad = in_layout(grad, channels_last);
  const Tensor dense_weight = torch::stable::contiguous(weight);
  const Tensor dense_bias = torch::stable::contiguous(bias ? *bias : weight);
  Tensor grad_x = torch::stable::empty_like(dense_x);
  Tensor grad_weight = torch::stable::new_empty(x, {x.size(1), 1, 3, 3}, ScalarType::Float);
  Tensor grad_bias = torch::stable::new_empty(x, {bias ? x.size(1) : 0}, ScalarType::Float);

  GatedDepthwiseBackwardCuda arguments{};
  arguments.grad = dense_grad.const_data_ptr();
  arguments.x = dense_x.const_data_ptr();
  arguments.grad_x = grad_x.mutable_data_ptr();
  arguments.weight = dense_weight.const_data_ptr();
  arguments.bias = bias ? dense_bias.const_data_ptr() : nullptr;
  arguments.grad_weight = grad_weight.mutable_data_ptr<float>();
  arguments.grad_bias = bias ? grad_bias.mutable_data_ptr<float>() : nullptr;
  arguments.weight_is_float32 = weight.scalar_type() == ScalarType::Float;
  arguments.bias_is_float32 = dense_bias.scalar_type() == ScalarType::Float;
  arguments.batch = x.size(0);
  arguments.channels = x.size(1) / 2;
  arguments.height = x.size(2);
  arguments.width = x.size(3);
  arguments.channels_last = channels_last;
  arguments.gelu = gelu;
  arguments.type = type;
  Tensor parts = torch::stable::new_empty(x, {gated_depthwise_backward_parts(arguments)}, ScalarType::Float);
  arguments.parts = parts.mutable_data_ptr<float>();
  check_launch("gated_depthwise_conv3x3_backward",
               launch_gated_depthwise_conv3x3_backward(arguments, current_cuda_stream(x.get_device_index())));
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace aicr
