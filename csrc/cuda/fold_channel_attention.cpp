// Host side of fold_channel_attention on CUDA: checks, device, stream, launch. Never waits for the device.
#include "cuda/fold_channel_attention.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/fold_channel_attention.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/fold_channel_attention_check.hpp"

namespace aicr {

using torch::headeronly::ScalarType;
using torch::stable::contiguous;
using torch::stable::Tensor;

Tensor fold_channel_attention_cuda(Tensor scores, Tensor q_norm, Tensor k_norm, Tensor temperature,
                                   Tensor project_out) {
  check_fold_channel_attention(scores, q_norm, k_norm, temperature, project_out);
  constexpr const char* kOp = "fold_channel_attention";
  STD_TORCH_CHECK(scores.scalar_type() == ScalarType::Float, kOp, ": scores must be float32 on CUDA, got ",
                  scores.scalar_type());
  STD_TORCH_CHECK(scores.size(2) <= kMostFoldedDepth, kOp, ": groups may have ", kMostFoldedDepth,
                  " channels on CUDA, got ", scores.size(2));
  const FeatureType type = cuda_feature_type(kOp, "project_out", project_out);
  const CudaDeviceGuard guard(scores.get_device_index());
  const Tensor dense_scores = contiguous(scores), dense_q = contiguous(q_norm), dense_k = contiguous(k_norm);
  const Tensor dense_temperature = contiguous(temperature), dense_out = contiguous(project_out);
  Tensor out = torch::stable::new_empty(scores, {scores.size(0), project_out.size(0), project_out.size(1)},
                                        ScalarType::Float);

  FoldChannelAttentionCuda arguments{};
  arguments.scores = dense_scores.const_data_ptr<float>();
  arguments.q_norm = dense_q.const_data_ptr<float>();
  arguments.k_norm = dense_k.const_data_ptr<float>();
  arguments.temperature = dense_temperature.const_data_ptr();
  arguments.project_out = dense_out.const_data_ptr();
  arguments.temperature_is_float32 = temperature.scalar_type() == ScalarType::Float;
  arguments.out = out.mutable_data_ptr<float>();
  arguments.batch = scores.size(0);
  arguments.groups = scores.size(1);
  arguments.depth = scores.size(2);
  arguments.outputs = project_out.size(0);
  arguments.type = type;
  check_launch(kOp, launch_fold_channel_attention(arguments, current_cuda_stream(scores.get_device_index())));
  return out;
}

}  // namespace aicr
