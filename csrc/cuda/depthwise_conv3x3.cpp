// Host side of depthwise_conv3x3_backward on CUDA: checks, device, stream, launch. Never waits for the
// device.
#include "cuda/depthwise_conv3x3.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/depthwise_conv3x3.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/depthwise_conv3x3_check.hpp"
#include "host/layout.hpp"

namespace aicr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::tuple<Tensor, Tensor, Tensor> depthwise_conv3x3_backward_cuda(Tensor grad, Tensor x, Tensor weight,
                                                                   bool with_bias) {
  check_depthwise_conv3x3_backward(grad, x, weight);
  const FeatureType type = cuda_feature_type("depthwise_conv3x3_backward", "x", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense_x = in_layout(x, channels_last), dense_grad = in_layout(grad, channels_last);
  const Tensor dense_weight = torch::stable::contiguous(weight);
  Tensor grad_x = torch::stable::empty_like(dense_x);
  Tensor grad_weight = torch::stable::new_empty(x, {x.size(1), 1, 3, 3}, ScalarType::Float);
  Tensor grad_bias = torch::stable::new_empty(x, {with_bias ? x.size(1) : 0}, ScalarType::Float);

  DepthwiseBackwardCuda arguments{};
  arguments.grad = dense_grad.const_data_ptr();
  arguments.x = dense_x.const_data_ptr();
  arguments.grad_x = grad_x.mutable_data_ptr();
  arguments.weight = dense_weight.const_data_ptr();
  arguments.grad_weight = grad_weight.mutable_data_ptr<float>();
  arguments.grad_bias = with_bias ? grad_bias.mutable_data_ptr<float>() : nullptr;
  arguments.weight_is_float32 = weight.scalar_type() == ScalarType::Float;
  arguments.batch = x.size(0);
  arguments.channels = x.size(1);
  arguments.height = x.size(2);
  arguments.width = x.size(3);
  arguments.channels_last = channels_last;
  arguments.type = type;
  Tensor parts = torch::stable::new_empty(x, {depthwise_backward_parts(arguments)}, ScalarType::Float);
  arguments.parts = parts.mutable_data_ptr<float>();
  check_launch("depthwise_conv3x3_backward",
               launch_depthwise_conv3x3_backward(arguments, current_cuda_stream(x.get_device_index())));
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace aicr
