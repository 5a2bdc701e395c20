// Host side of decoupled_attention and its derivative on the CPU: checks, dispatch by dtype, threads.
#include "cpu/decoupled_attention.hpp"

#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/accumulate.hpp"
#include "cpu/decoupled_attention_backward_kernel.hpp"
#include "cpu/decoupled_attention_kernel.hpp"
#include "host/decoupled_attention_check.hpp"
#include "host/layout.hpp"

namespace aicr {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename T>
void run(const Tensor& attn, const Tensor& value, const Tensor& weight_row, const Tensor& weight_col,
         Tensor& out, const DecoupledAttentionShape& shape) {
  using Acc = typename Accumulate<T>::type;
  const std::vector<Acc> row = weight_values<T, Acc>(weight_row), col = weight_values<T, Acc>(weight_col);
  const T *attn_data = attn.const_data_ptr<T>(), *value_data = value.const_data_ptr<T>();
  T* out_data = out.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, decoupled_attention_pieces(shape), 1, [&](int64_t first, int64_t last) {
    decoupled_attention_run<T, Acc>(shape, attn_data, value_data, row.data(), col.data(), out_data, first,
                                    last);
  });
}

// The parts of the gradients of both weights, summed into [channels][taps].
template <typename Acc>
void add_weight_parts(const DecoupledAttentionShape& shape, const std::vector<Acc>& parts, Acc* grad_row,
                      Acc* grad_col) {
  const int64_t C = shape.channels, K = shape.taps, width = decoupled_attention_backward_part(shape);
  std::vector<double> row(C * K), col(C * K);
  for (int64_t piece = 0; piece < decoupled_attention_backward_pieces(shape); ++piece) {
    const int64_t first = decoupled_attention_backward_channel(shape, piece), channels = width / (2 * K);
    const Acc* part = parts.data() + piece * width;
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t c = 0; c < channels; ++c) {
        row[(first + c) * K + k] += part[k * channels + c];
        col[(first + c) * K + k] += part[(K + k) * channels + c];
      }
    }
  }
  for (int64_t i = 0; i < C * K; ++i) {
    grad_row[i] = static_cast<Acc>(row[i]);
    grad_col[i] = static_cast<Acc>(col[i]);
  }
}

template <typename T>
void run_backward(const DecoupledAttentionShape& shape, const Tensor& grad, const Tensor& attn,
                  const Tensor& value, const Tensor& weight_row, const Tensor& weight_col, Tensor& grad_attn,
                  Tensor& grad_value, Tensor& grad_row, Tensor& grad_col) {
  using Acc = typename Accumulate<T>::type;
  const std::vector<Acc> row = weight_values<T, Acc>(weight_row), col = weight_values<T, Acc>(weight_col);
  const int64_t pieces = decoupled_attention_backward_pieces(shape);
  std::vector<Acc> parts(pieces * decoupled_attention_backward_part(shape));
  const T *grad_data = grad.const_data_ptr<T>(), *attn_data = attn.const_data_ptr<T>(),
          *value_data = value.const_data_ptr<T>();
  T *grad_attn_data = grad_attn.mutable_data_ptr<T>(), *grad_value_data = grad_value.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    decoupled_attention_backward_run<T, Acc>(shape, grad_data, attn_data, value_data, row.data(), col.data(),
                                             grad_attn_data, grad_value_data, parts.data(), first, last);
  });
  add_weight_parts(shape, parts, grad_row.mutable_data_ptr<Acc>(), grad_col.mutable_data_ptr<Acc>());
}

DecoupledAttentionShape shape_of(const Tensor& attn, const Tensor& weight_row, bool channels_last) {
  return {attn.size(0), attn.size(1), attn.size(2), attn.size(3), weight_row.size(3), channels_last};
}

}  // namespace

Tensor decoupled_attention_cpu(Tensor attn, Tensor value, Tensor weight_row, Tensor weight_col) {
  check_decoupled_attention(attn, value, weight_row, weight_col);
  const bool channels_last = prefers_channels_last(attn);
  const Tensor dense_attn = in_layout(attn, channels_last), dense_value = in_layout(value, channels_last);
  Tensor out = torch::stable::empty_like(dense_attn);
  const DecoupledAttentionShape shape = shape_of(attn, weight_row, channels_last);
  THO_DISPATCH_V2(attn.scalar_type(), "decoupled_attention", AT_WRAP([&] {
                    run<scalar_t>(dense_attn, dense_value, weight_row, weight_col, out, shape);
                  }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> decoupled_attention_backward_cpu(Tensor grad, Tensor attn,
                                                                            Tensor value, Tensor weight_row,
                                                                            Tensor weight_col) {
  check_decoupled_attention(attn, value, weight_row, weight_col);
  check_decoupled_attention_grad(grad, attn);
  const bool channels_last = prefers_channels_last(attn);
  const Tensor dense_grad = in_layout(grad, channels_last), dense_attn = in_layout(attn, channels_last),
               dense_value = in_layout(value, channels_last);
  const int64_t C = attn.size(1), K = weight_row.size(3);
  const ScalarType sum_type = accumulate_type(attn.scalar_type());
  Tensor grad_attn = torch::stable::empty_like(dense_attn),
         grad_value = torch::stable::empty_like(dense_attn);
  Tensor grad_row = torch::stable::new_empty(attn, {C, 1, 1, K}, sum_type);
  Tensor grad_col = torch::stable::new_empty(attn, {C, 1, K, 1}, sum_type);
  const DecoupledAttentionShape shape = shape_of(attn, weight_row, channels_last);
  THO_DISPATCH_V2(attn.scalar_type(), "decoupled_attention_backward", AT_WRAP([&] {
                    run_backward<scalar_t>(shape, dense_grad, dense_attn, dense_value, weight_row, weight_col,
                                           grad_attn, grad_value, grad_row, grad_col);
                  }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return {grad_attn, grad_value, grad_row, grad_col};
}

}  // namespace aicr
