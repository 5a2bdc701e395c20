// Host side of decoupled_attention and its derivative on CUDA: checks, device, stream, launch. Never waits
// for the device.
#include "cuda/decoupled_attention.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/decoupled_attention.cuh"
#include "host/cuda_feature_type.hpp"
#include "host/cuda_stream.hpp"
#include "host/decoupled_attention_check.hpp"
#include "host/layout.hpp"

namespace aicr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor decoupled_attention_cuda(Tensor attn, Tensor value, Tensor weight_row, Tensor weight_col) {
  check_decoupled_attention(attn, value, weight_row, weight_col);
  const FeatureType type = cuda_feature_type("decoupled_attention", "attn", attn);
  const CudaDeviceGuard guard(attn.get_device_index());
  const bool channels_last = prefers_channels_last(attn);
  const Tensor dense_attn = in_layout(attn, channels_last), dense_value = in_layout(value, channels_last);
  const Tensor row = torch::stable::contiguous(weight_row), col = torch::stable::contiguous(weight_col);
  Tensor out = torch::stable::empty_like(dense_attn);

  DecoupledAttentionCuda arguments{};
  arguments.attn = dense_attn.const_data_ptr();
  arguments.value = dense_value.const_data_ptr();
  arguments.out = out.mutable_data_ptr();
  arguments.weight_row = row.const_data_ptr();
  arguments.weight_col = col.const_data_ptr();
  arguments.weight_row_is_float32 = row.scalar_type() == ScalarType::Float;
  arguments.weight_col_is_float32 = col.scalar_type() == ScalarType::Float;
  arguments.batch = attn.size(0);
  arguments.channels = attn.size(1);
  arguments.height = attn.size(2);
  arguments.width = attn.size(3);
  arguments.taps = static_cast<int>(weight_row.size(3));
  arguments.channels_last = channels_last;
  arguments.type = type;
  check_launch("decoupled_attention",
               launch_decoupled_attention(arguments, current_cuda_stream(attn.get_device_index())));
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> decoupled_attention_backward_cuda(Tensor grad, Tensor attn,
                                                                             Tensor value, Tensor weight_row,
                                                                             Tensor weight_col) {
  check_decoupled_attention(attn, value, weight_row, weight_col);
  check_decoupled_attention_grad(grad, attn);
  const FeatureType type = cuda_feature_type("decoupled_attention_backward", "attn", attn);
  const CudaDeviceGuard guard(attn.get_device_index());
  const bool channels_last = prefers_channels_last(attn);
  const Tensor dense_grad = in_layout(grad, channels_last), dense_attn = in_layout(attn, channels_last),
               dense_value = in_layout(value, channels_last);
  const Tensor row = torch::stable::contiguous(weight_row), col = torch::stable::contiguous(weight_col);
  const int64_t C = attn.size(1), K = weight_row.size(3);
  Tensor grad_attn = torch::stable::empty_like(dense_attn),
         grad_value = torch::stable::empty_like(dense_attn);
  Tensor grad_row = torch::stable::new_empty(attn, {C, 1, 1, K}, ScalarType::Float);
  Tensor grad_col = torch::stable::new_empty(attn, {C, 1, K, 1}, ScalarType::Float);

  DecoupledAttentionBackwardCuda arguments{};
  arguments.grad = dense_grad.const_data_ptr();
  arguments.attn = dense_attn.const_data_ptr();
  arguments.value = dense_value.const_data_ptr();
  arguments.grad_attn = grad_attn.mutable_data_ptr();
  arguments.grad_value = grad_value.mutable_data_ptr();
  arguments.weight_row = row.const_data_ptr();
  arguments.weight_col = col.const_data_ptr();
  arguments.grad_weight_row = grad_row.mutable_data_ptr<float>();
  arguments.grad_weight_col = grad_col.mutable_data_ptr<float>();
  arguments.weight_row_is_float32 = row.scalar_type() == ScalarType::Float;
  arguments.weight_col_is_float32 = col.scalar_type() == ScalarType::Float;
  arguments.batch = attn.size(0);
  arguments.channels = C;
  arguments.height = attn.size(2);
  arguments.width = attn.size(3);
  arguments.taps = static_cast<int>(K);
  arguments.channels_last = channels_last;
  arguments.type = type;
  Tensor parts =
      torch::stable::new_empty(attn, {decoupled_attention_backward_parts(arguments)}, ScalarType::Float);
  arguments.parts = parts.mutable_data_ptr<float>();
  check_launch("decoupled_attention_backward",
               launch_decoupled_attention_backward(arguments, current_cuda_stream(attn.get_device_index())));
  return {grad_attn, grad_value, grad_row, grad_col};
}

}  // namespace aicr
