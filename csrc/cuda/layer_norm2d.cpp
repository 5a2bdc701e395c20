// Host side of layer_norm2d on CUDA: checks, device, stream, launch. Never waits for the device.
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
  const cudaError_t error = launch_layer_norm2d(arguments, current_cuda_stream(x.get_device_index()));
  STD_TORCH_CHECK(error == cudaSuccess, "layer_norm2d: ", cudaGetErrorString(error));
  return out;
}

}  // namespace aicr
