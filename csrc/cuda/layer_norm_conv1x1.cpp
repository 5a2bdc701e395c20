// Host side of layer_norm_conv1x1 on CUDA: checks, device, stream, launch. Never waits for the device.
#include "cuda/layer_norm_conv1x1.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/layer_norm_conv1x1.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/layer_norm_conv1x1_check.hpp"
#include "host/layout.hpp"

namespace aicr {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {

// What a projection reads and writes, held while the kernel is queued.
struct Projected {
  Tensor weight, bias, out;
  bool with_bias;

  Projected(const Tensor& x, const Tensor& given, const std::optional<Tensor>& given_bias, bool channels_last)
      : weight(torch::stable::contiguous(torch::stable::to(given, x.scalar_type()))),
        bias(torch::stable::contiguous(given_bias ? *given_bias : given)),
        out(torch::stable::empty({x.size(0), given.size(0), x.size(2), x.size(3)}, x.scalar_type(),
                                 std::nullopt, x.device(), std::nullopt,
                                 channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous)),
        with_bias(given_bias.has_value()) {}

  NormalisedProjection arguments() {
    NormalisedProjection a{};
    a.weight = weight.const_data_ptr();
    a.bias = with_bias ? bias.const_data_ptr() : nullptr;
    a.out = out.mutable_data_ptr();
    a.bias_is_float32 = bias.scalar_type() == ScalarType::Float;
    a.outputs = weight.size(0);
    return a;
  }
};

}  // namespace

std::tuple<Tensor, Tensor> layer_norm_conv1x1_cuda(
    Tensor x, Tensor norm_weight, std::optional<Tensor> norm_bias, Tensor weight, std::optional<Tensor> bias,
    std::optional<Tensor> second_weight, std::optional<Tensor> second_bias, bool subtract_mean, double eps) {
  check_layer_norm_conv1x1(x, norm_weight, norm_bias, weight, bias, second_weight, second_bias, eps);
  constexpr const char* kOp = "layer_norm_conv1x1";
  const FeatureType type = cuda_feature_type(kOp, "x", x);
  STD_TORCH_CHECK(x.size(1) <= kMostNormalisedChannels, kOp, ": x may have ", kMostNormalisedChannels,
                  " channels on CUDA, got ", x.size(1));
  const CudaDeviceGuard guard(x.get_device_index());
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense = in_layout(x, channels_last);
  const Tensor dense_norm_weight = torch::stable::contiguous(norm_weight);
  const Tensor dense_norm_bias = torch::stable::contiguous(norm_bias ? *norm_bias : norm_weight);
  Projected first(x, weight, bias, channels_last);
  std::optional<Projected> second;
  if (second_weight) second.emplace(x, *second_weight, second_bias, channels_last);

  LayerNormConv1x1Cuda arguments{};
  arguments.x = dense.const_data_ptr();
  arguments.norm_weight = dense_norm_weight.const_data_ptr();
  arguments.norm_bias = norm_bias ? dense_norm_bias.const_data_ptr() : nullptr;
  arguments.norm_weight_is_float32 = norm_weight.scalar_type() == ScalarType::Float;
  arguments.norm_bias_is_float32 = dense_norm_bias.scalar_type() == ScalarType::Float;
  arguments.first = first.arguments();
  if (second) arguments.second = second->arguments();
  arguments.batch = x.size(0);
  arguments.channels = x.size(1);
  arguments.pixels = x.size(2) * x.size(3);
  arguments.channels_last = channels_last;
  arguments.subtract_mean = subtract_mean;
  arguments.eps = static_cast<float>(eps);
  arguments.type = type;
  check_launch(kOp, launch_layer_norm_conv1x1(arguments, current_cuda_stream(x.get_device_index())));
  return {first.out, second ? second->out : torch::stable::new_empty(x, {0})};
}

}  // namespace aicr
