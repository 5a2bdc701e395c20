// Host side of gelu_gate on the CPU: checks, dispatch by dtype, threads.
#include "cpu/gelu_gate.hpp"

#include <optional>

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/gelu_gate_kernel.hpp"
#include "host/gelu_gate_check.hpp"
#include "host/layout.hpp"

namespace aicr {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

GeluGateShape shape_of(const Tensor& x, bool channels_last) {
  const int64_t pixels = x.size(2) * x.size(3), channels = x.size(1) / 2;
  return channels_last ? GeluGateShape{x.size(0) * pixels, channels}
                       : GeluGateShape{x.size(0), channels * pixels};
}

template <typename T>
void run(const GeluGateShape& shape, const Tensor& x, Tensor& out) {
  const T* x_data = x.const_data_ptr<T>();
  T* out_data = out.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, gelu_gate_pieces(shape), 1, [&](int64_t first, int64_t last) {
    gelu_gate_run<T>(shape, x_data, out_data, first, last);
  });
}

template <typename T>
void run_backward(const GeluGateShape& shape, const Tensor& grad, const Tensor& x, Tensor& grad_x) {
  const T *grad_data = grad.const_data_ptr<T>(), *x_data = x.const_data_ptr<T>();
  T* grad_x_data = grad_x.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, gelu_gate_pieces(shape), 1, [&](int64_t first, int64_t last) {
    gelu_gate_backward_run<T>(shape, grad_data, x_data, grad_x_data, first, last);
  });
}

}  // namespace

Tensor gelu_gate_cpu(Tensor x) {
  check_gelu_gate(x);
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense = in_layout(x, channels_last);
  using torch::headeronly::MemoryFormat;
  Tensor out = torch::stable::empty({x.size(0), x.size(1) / 2, x.size(2), x.size(3)}, x.scalar_type(),
                                    std::nullopt, x.device(), std::nullopt,
                                    channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  const GeluGateShape shape = shape_of(x, channels_last);
  THO_DISPATCH_V2(x.scalar_type(), "gelu_gate", AT_WRAP([&] { run<scalar_t>(shape, dense, out); }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return out;
}

Tensor gelu_gate_backward_cpu(Tensor grad, Tensor x) {
  check_gelu_gate(x);
  check_gelu_gate_grad(grad, x);
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense_x = in_layout(x, channels_last), dense_grad = in_layout(grad, channels_last);
  Tensor grad_x = torch::stable::empty_like(dense_x);
  const GeluGateShape shape = shape_of(x, channels_last);
  THO_DISPATCH_V2(x.scalar_type(), "gelu_gate_backward",
                  AT_WRAP([&] { run_backward<scalar_t>(shape, dense_grad, dense_x, grad_x); }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return grad_x;
}

}  // namespace aicr
