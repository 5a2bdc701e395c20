// Host side of layer_norm2d on the CPU: checks, dispatch by dtype, threads.
#include "cpu/layer_norm2d.hpp"

#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/accumulate.hpp"
#include "cpu/layer_norm2d_kernel.hpp"
#include "host/layer_norm2d_check.hpp"
#include "host/layout.hpp"

namespace aicr {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

LayerNorm2dShape shape_of(const Tensor& x, bool channels_last, bool subtract_mean, double eps) {
  return {x.size(0), x.size(1), x.size(2) * x.size(3), channels_last, subtract_mean, eps};
}

template <typename T>
void run(const LayerNorm2dShape& shape, const Tensor& x, const Tensor& weight,
         const std::optional<Tensor>& bias, Tensor& out) {
  using Acc = typename Accumulate<T>::type;
  const std::vector<Acc> w = weight_values<T, Acc>(weight);
  const std::vector<Acc> b = bias ? weight_values<T, Acc>(*bias) : std::vector<Acc>(w.size());
  const T* x_data = x.const_data_ptr<T>();
  T* out_data = out.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, layer_norm2d_pieces(shape), 1, [&](int64_t first, int64_t last) {
    layer_norm2d_run<T, Acc>(shape, x_data, w.data(), b.data(), out_data, first, last);
  });
}

template <typename T>
void run_backward(const LayerNorm2dShape& shape, const Tensor& grad, const Tensor& x, const Tensor& weight,
                  Tensor& grad_x, Tensor& grad_weight, Tensor& grad_bias) {
  using Acc = typename Accumulate<T>::type;
  const int64_t pieces = layer_norm2d_pieces(shape), C = shape.channels;
  const bool with_bias = grad_bias.numel() > 0;
  const std::vector<Acc> w = weight_values<T, Acc>(weight);
  std::vector<Acc> weight_parts(pieces * C), bias_parts(with_bias ? pieces * C : 0);
  const T *grad_data = grad.const_data_ptr<T>(), *x_data = x.const_data_ptr<T>();
  T* grad_x_data = grad_x.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    layer_norm2d_backward_run<T, Acc>(shape, grad_data, x_data, w.data(), grad_x_data, weight_parts.data(),
                                      with_bias ? bias_parts.data() : nullptr, first, last);
  });
  add_parts(weight_parts, C, grad_weight.mutable_data_ptr<Acc>());
  if (with_bias) add_parts(bias_parts, C, grad_bias.mutable_data_ptr<Acc>());
}

}  // namespace

Tensor layer_norm2d_cpu(Tensor x, Tensor weight, std::optional<Tensor> bias, bool subtract_mean, double eps) {
  check_layer_norm2d(x, weight, eps);
  if (bias) check_layer_norm2d_weight("bias", x, *bias);
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense = in_layout(x, channels_last);
  Tensor out = torch::stable::empty_like(dense);
  const LayerNorm2dShape shape = shape_of(x, channels_last, subtract_mean, eps);
  THO_DISPATCH_V2(x.scalar_type(), "layer_norm2d",
                  AT_WRAP([&] { run<scalar_t>(shape, dense, weight, bias, out); }), ScalarType::Float,
                  ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> layer_norm2d_backward_cpu(Tensor grad, Tensor x, Tensor weight,
                                                             bool with_bias, bool subtract_mean, double eps) {
  check_layer_norm2d(x, weight, eps);
  check_layer_norm2d_grad(grad, x);
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense_x = in_layout(x, channels_last), dense_grad = in_layout(grad, channels_last);
  const ScalarType sum_type = accumulate_type(x.scalar_type());
  Tensor grad_x = torch::stable::empty_like(dense_x);
  Tensor grad_weight = torch::stable::new_empty(x, {x.size(1)}, sum_type);
  Tensor grad_bias = torch::stable::new_empty(x, {with_bias ? x.size(1) : 0}, sum_type);
  const LayerNorm2dShape shape = shape_of(x, channels_last, subtract_mean, eps);
  THO_DISPATCH_V2(x.scalar_type(), "layer_norm2d_backward", AT_WRAP([&] {
                    run_backward<scalar_t>(shape, dense_grad, dense_x, weight, grad_x, grad_weight,
                                           grad_bias);
                  }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace aicr
