// Host side of depthwise_gram on CUDA: checks, device, stream, launch. Never waits for the device.
#include "cuda/depthwise_gram.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/depthwise_gram.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/depthwise_gram_check.hpp"
#include "host/layout.hpp"

namespace aicr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::tuple<Tensor, Tensor, Tensor> depthwise_gram_cuda(Tensor qk, Tensor weight, std::optional<Tensor> bias,
                                                       int64_t groups) {
  check_depthwise_gram(qk, weight, bias ? &*bias : nullptr, groups);
  const FeatureType type = cuda_feature_type("depthwise_gram", "qk", qk);
  const CudaDeviceGuard guard(qk.get_device_index());
  const bool channels_last = prefers_channels_last(qk);
  const Tensor dense = in_layout(qk, channels_last), dense_weight = torch::stable::contiguous(weight);
  const Tensor dense_bias = torch::stable::contiguous(bias ? *bias : weight);
  const int64_t batch = qk.size(0), channels = qk.size(1) / 2, depth = channels / groups;
  Tensor scores = torch::stable::new_empty(qk, {batch, groups, depth, depth}, ScalarType::Float);
  Tensor q_norm = torch::stable::new_empty(qk, {batch, groups, depth}, ScalarType::Float);
  Tensor k_norm = torch::stable::new_empty(qk, {batch, groups, depth}, ScalarType::Float);

  DepthwiseGramCuda arguments{};
  arguments.qk = dense.const_data_ptr();
  arguments.weight = dense_weight.const_data_ptr();
  arguments.bias = bias ? dense_bias.const_data_ptr() : nullptr;
  arguments.weight_is_float32 = weight.scalar_type() == ScalarType::Float;
  arguments.bias_is_float32 = dense_bias.scalar_type() == ScalarType::Float;
  arguments.batch = batch;
  arguments.channels = channels;
  arguments.height = qk.size(2);
  arguments.width = qk.size(3);
  arguments.groups = groups;
  arguments.channels_last = channels_last;
  arguments.type = type;
  Tensor parts = torch::stable::new_empty(qk, {depthwise_gram_parts(arguments)}, ScalarType::Float);
  arguments.parts = parts.mutable_data_ptr<float>();
  arguments.scores = scores.mutable_data_ptr<float>();
  arguments.q_norm = q_norm.mutable_data_ptr<float>();
  arguments.k_norm = k_norm.mutable_data_ptr<float>();
  check_launch("depthwise_gram",
               launch_depthwise_gram(arguments, current_cuda_stream(qk.get_device_index())));
  return {scores, q_norm, k_norm};
}

}  // namespace aicr
