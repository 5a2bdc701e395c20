// Host side of depthwise_conv3x3, gated_depthwise_conv3x3 and the latter's derivative on the CPU: checks,
// dispatch by dtype, threads.
#include "cpu/gated_depthwise_conv3x3.hpp"

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/accumulate.hpp"
#include "cpu/gated_depthwise_conv3x3_backward_kernel.hpp"
#include "cpu/gated_depthwise_conv3x3_kernel.hpp"
#include "host/depthwise_conv3x3_check.hpp"
#include "host/gated_depthwise_conv3x3_check.hpp"
#include "host/layout.hpp"

namespace aicr {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

GatedDepthwiseShape shape_of(const Tensor& x, bool channels_last, DepthwiseGate gate) {
  return {{x.size(0), x.size(1), x.size(2), x.size(3), channels_last}, gate};
}

DepthwiseGate gate_of(bool gelu) {
  return gelu ? DepthwiseGate::kGelu : DepthwiseGate::kProduct;
}

template <typename T, typename Acc>
std::vector<Acc> terms_of(const GatedDepthwiseShape& shape, const Tensor& weight,
                          const std::optional<Tensor>& bias) {
  const std::vector<Acc> taps = weight_values<T, Acc>(weight);
  const std::vector<Acc> offsets = bias ? weight_values<T, Acc>(*bias) : std::vector<Acc>();
  return gated_depthwise_terms<Acc>(shape.map, taps.data(), bias ? offsets.data() : nullptr);
}

template <typename T>
void run(const GatedDepthwiseShape& shape, const Tensor& x, const Tensor& weight,
         const std::optional<Tensor>& bias, Tensor& out) {
  using Acc = typename Accumulate<T>::type;
  const std::vector<Acc> terms = terms_of<T, Acc>(shape, weight, bias);
  const T* x_data = x.const_data_ptr<T>();
  T* out_data = out.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, gated_depthwise_pieces(shape), 1, [&](int64_t first, int64_t last) {
    gated_depthwise_run<T, Acc>(shape, x_data, terms.data(), out_data, first, last);
  });
}

// The parts of the gradients of weight and bias, summed into [channels][9] and [channels] (or null).
template <typename Acc>
void add_term_parts(const GatedDepthwiseShape& shape, const std::vector<Acc>& parts, Acc* grad_weight,
                    Acc* grad_bias) {
  const int64_t channels = gated_depthwise_backward_channels(shape);
  std::vector<double> sums(kDepthwiseTerms * shape.map.channels);
  for (int64_t piece = 0; piece < gated_depthwise_backward_pieces(shape); ++piece) {
    const Acc* part = parts.data() + piece * kDepthwiseTerms * channels;
    for (int64_t n = 0; n < channels; ++n) {
      double* of_channel = sums.data() + gated_depthwise_backward_channel(shape, piece, n) * kDepthwiseTerms;
      for (int64_t t = 0; t < kDepthwiseTerms; ++t) of_channel[t] += part[t * channels + n];
    }
  }
  for (int64_t c = 0; c < shape.map.channels; ++c) {
    const double* of_channel = sums.data() + c * kDepthwiseTerms;
    for (int64_t t = 0; t < kDepthwiseTaps; ++t) {
      grad_weight[c * kDepthwiseTaps + t] = static_cast<Acc>(of_channel[t]);
    }
    if (grad_bias != nullptr) grad_bias[c] = static_cast<Acc>(of_channel[kDepthwiseTaps]);
  }
}

template <typename T>
void run_backward(const GatedDepthwiseShape& shape, const Tensor& grad, const Tensor& x, const Tensor& weight,
                  const std::optional<Tensor>& bias, Tensor& grad_x, Tensor& grad_weight, Tensor& grad_bias) {
  using Acc = typename Accumulate<T>::type;
  const std::vector<Acc> terms = terms_of<T, Acc>(shape, weight, bias);
  std::vector<Acc> backwards = weight_values<T, Acc>(weight);
  for (int64_t c = 0; c < shape.map.channels; ++c) {
    std::reverse(backwards.begin() + c * kDepthwiseTaps, backwards.begin() + (c + 1) * kDepthwiseTaps);
  }
  const std::vector<Acc> flipped = gated_depthwise_terms<Acc>(shape.map, backwards.data(), nullptr);
  const int64_t pieces = gated_depthwise_backward_pieces(shape);
  std::vector<Acc> parts(pieces * kDepthwiseTerms * gated_depthwise_backward_channels(shape));
  const T *grad_data = grad.const_data_ptr<T>(), *x_data = x.const_data_ptr<T>();
  T* grad_x_data = grad_x.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    gated_depthwise_backward_run<T, Acc>(shape, grad_data, x_data, terms.data(), flipped.data(), grad_x_data,
                                         parts.data(), first, last);
  });
  add_term_parts<Acc>(shape, parts, grad_weight.mutable_data_ptr<Acc>(),
                      bias ? grad_bias.mutable_data_ptr<Acc>() : nullptr);
}

template <bool kGated>
Tensor convolved(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                 DepthwiseGate gate) {
  constexpr const char* kOp = kGated ? "gated_depthwise_conv3x3" : "depthwise_conv3x3";
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense = in_layout(x, channels_last);
  const GatedDepthwiseShape shape = shape_of(x, channels_last, gate);
  Tensor out = torch::stable::empty({x.size(0), shape.out_channels(), x.size(2), x.size(3)}, x.scalar_type(),
                                    std::nullopt, x.device(), std::nullopt,
                                    channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  THO_DISPATCH_V2(x.scalar_type(), kOp, AT_WRAP([&] { run<scalar_t>(shape, dense, weight, bias, out); }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return out;
}

}  // namespace

Tensor depthwise_conv3x3_cpu(Tensor x, Tensor weight, std::optional<Tensor> bias) {
  check_depthwise_conv3x3("depthwise_conv3x3", x, weight, bias ? &*bias : nullptr);
  return convolved<false>(x, weight, bias, DepthwiseGate::kNone);
}

Tensor gated_depthwise_conv3x3_cpu(Tensor x, Tensor weight, std::optional<Tensor> bias, bool gelu) {
  check_gated_depthwise_conv3x3(x, weight, bias ? &*bias : nullptr);
  return convolved<true>(x, weight, bias, gate_of(gelu));
}

std::tuple<Tensor, Tensor, Tensor> gated_depthwise_conv3x3_backward_cpu(Tensor grad, Tensor x, Tensor weight,
                                                                        std::optional<Tensor> bias,
                                                                        bool gelu) {
  check_gated_depthwise_conv3x3(x, weight, bias ? &*bias : nullptr);
  check_gated_depthwise_conv3x3_grad(grad, x);
  const bool channels_last = prefers_channels_last(x);
  const Tensor dense_x = in_layout(x, channels_last), dense_grad = in_layout(grad, channels_last);
  const ScalarType sum_type = accumulate_type(x.scalar_type());
  Tensor grad_x = torch::stable::empty_like(dense_x);
  Tensor grad_weight = torch::stable::new_empty(x, {x.size(1), 1, 3, 3}, sum_type);
  Tensor grad_bias = torch::stable::new_empty(x, {bias ? x.size(1) : 0}, sum_type);
  const GatedDepthwiseShape shape = shape_of(x, channels_last, gate_of(gelu));
  THO_DISPATCH_V2(x.scalar_type(), "gated_depthwise_conv3x3_backward", AT_WRAP([&] {
                    run_backward<scalar_t>(shape, dense_grad, dense_x, weight, bias, grad_x, grad_weight,
                                           grad_bias);
                  }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace aicr
