// Host side of gelu_gate and its derivative on CUDA: checks, device, stream, launch. Never waits for the
// device.
#include "cuda/gelu_gate.hpp"

#include <optional>

#include <torch/csrc/stable/ops.h>

#include "cuda/gelu_gate.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/gelu_gate_check.hpp"
#include "host/layout.hpp"

namespace aicr {

using torch::headeronly::MemoryFormat;
using torch::stable::Tensor;

namespace {

GeluGateCuda arguments_for(const Tensor& x, bool channels_last, FeatureType type) {
  const int64_t pixels = x.size(2) * x.size(3), channels = x.size(1) / 2;
  GeluGateCuda arguments{};
  arguments.rows = channels_last ? x.size(0) * pixels : x.size(0);
  arguments.run = channels_last ? channels : channels * pixels;
  arguments.type = type;
  return arguments;
}

}  // namespace

Tensor gelu_gate_cuda(Tensor x) {
  check_gelu_gate(x);
  const FeatureType type = cuda_feature_type("gelu_gate", "x", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense = in_layout(x, channels_last);
  Tensor out = torch::stable::empty({x.size(0), x.size(1) / 2, x.size(2), x.size(3)}, x.scalar_type(),
                                    std::nullopt, x.device(), std::nullopt,
                                    channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  GeluGateCuda arguments = arguments_for(x, channels_last, type);
  arguments.x = dense.const_data_ptr();
  arguments.out = out.mutable_data_ptr();
  check_launch("gelu_gate", launch_gelu_gate(arguments, current_cuda_stream(x.get_device_index())));
  return out;
}

Tensor gelu_gate_backward_cuda(Tensor grad, Tensor x) {
  check_gelu_gate(x);
  check_gelu_gate_grad(grad, x);
  const FeatureType type = cuda_feature_type("gelu_gate_backward", "x", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense_x = in_layout(x, channels_last), dense_grad = in_layout(grad, channels_last);
  Tensor grad_x = torch::stable::empty_like(dense_x);
  GeluGateCuda arguments = arguments_for(x, channels_last, type);
  arguments.x = dense_x.const_data_ptr();
  arguments.grad = dense_grad.const_data_ptr();
  arguments.out = grad_x.mutable_data_ptr();
  check_launch("gelu_gate_backward", launch_gelu_gate(arguments, current_cuda_stream(x.get_device_index())));
  return grad_x;
}

}  // namespace aicr
