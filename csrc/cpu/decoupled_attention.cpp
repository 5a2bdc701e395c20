// Host side of decoupled_attention on the CPU: checks, dispatch by dtype, threads.
#include "cpu/decoupled_attention.hpp"

#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/accumulate.hpp"
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

}  // namespace

Tensor decoupled_attention_cpu(Tensor attn, Tensor value, Tensor weight_row, Tensor weight_col) {
  check_decoupled_attention(attn, value, weight_row, weight_col);
  const bool channels_last = prefers_channels_last(attn);
  const Tensor dense_attn = in_layout(attn, channels_last), dense_value = in_layout(value, channels_last);
  Tensor out = torch::stable::empty_like(dense_attn);
  const DecoupledAttentionShape shape{attn.size(0), attn.size(1),       attn.size(2),
                                      attn.size(3), weight_row.size(3), channels_last};
  THO_DISPATCH_V2(attn.scalar_type(), "decoupled_attention", AT_WRAP([&] {
                    run<scalar_t>(dense_attn, dense_value, weight_row, weight_col, out, shape);
                  }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return out;
}

}  // namespace aicr
