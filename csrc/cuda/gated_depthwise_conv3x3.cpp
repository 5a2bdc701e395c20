// Host side of gated_depthwise_conv3x3 on CUDA: checks, device, stream, launch. Never waits for the device.
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

}  // namespace aicr
