// out = GELU(gate) * value, where gate and value are the halves of one tensor; every value is read and
// written once, forward and backward.
#include "cpu/gelu_gate_kernel.hpp"

#include <algorithm>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/gelu.hpp"
#include "cpu/tiles.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kPieceValues = 16384;  // of the result

template <typename Acc, typename T>
AICR_INLINE void forward(const T* __restrict__ gate, const T* __restrict__ value, T* __restrict__ out,
                         int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<T>(gelu(static_cast<Acc>(gate[i])) * static_cast<Acc>(value[i]));
  }
}

template <typename Acc, typename T>
AICR_INLINE void backward(const T* __restrict__ grad, const T* __restrict__ gate, const T* __restrict__ value,
                          T* __restrict__ grad_gate, T* __restrict__ grad_value, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const Acc up = static_cast<Acc>(grad[i]), x = static_cast<Acc>(gate[i]);
    grad_gate[i] = static_cast<T>(up * static_cast<Acc>(value[i]) * gelu_slope(x));
    grad_value[i] = static_cast<T>(up * gelu(x));
  }
}

// Calls part(row, offset, count) for the parts of rows that the pieces consist of.
template <typename Part>
AICR_INLINE void for_parts(const GeluGateShape& shape, int64_t first, int64_t last, const Part& part) {
  const int64_t end = std::min(last * kPieceValues, shape.rows * shape.run);
  for (int64_t at = first * kPieceValues; at < end;) {
    const int64_t row = at / shape.run, offset = at % shape.run;
    const int64_t count = std::min(shape.run - offset, end - at);
    part(row, offset, count);
    at += count;
  }
}

// target_clones does not go with templates, so the types are spelled out. A clone works on one part of a row.
#define AICR_DEFINE_CLONES(T, Acc)                                                                    \
  AICR_VECTOR_CLONES void forward_clones(const T* gate, const T* value, T* out, int64_t count) {      \
    forward<Acc>(gate, value, out, count);                                                            \
  }                                                                                                   \
  AICR_VECTOR_CLONES void backward_clones(const T* grad, const T* gate, const T* value, T* grad_gate, \
                                          T* grad_value, int64_t count) {                             \
    backward<Acc>(grad, gate, value, grad_gate, grad_value, count);                                   \
  }
AICR_DEFINE_CLONES(float, float)
AICR_DEFINE_CLONES(BFloat16, float)
AICR_DEFINE_CLONES(Half, float)
#undef AICR_DEFINE_CLONES

void forward_clones(const double* gate, const double* value, double* out, int64_t count) {
  forward<double>(gate, value, out, count);
}

void backward_clones(const double* grad, const double* gate, const double* value, double* grad_gate,
                     double* grad_value, int64_t count) {
  backward<double>(grad, gate, value, grad_gate, grad_value, count);
}

}  // namespace

int64_t gelu_gate_pieces(const GeluGateShape& shape) {
  return divide_up(shape.rows * shape.run, kPieceValues);
}

template <typename T>
void gelu_gate_run(const GeluGateShape& shape, const T* x, T* out, int64_t first, int64_t last) {
  for_parts(shape, first, last, [&](int64_t row, int64_t offset, int64_t count) {
    const T* gate = x + 2 * row * shape.run + offset;
    forward_clones(gate, gate + shape.run, out + row * shape.run + offset, count);
  });
}

template <typename T>
void gelu_gate_backward_run(const GeluGateShape& shape, const T* grad, const T* x, T* grad_x, int64_t first,
                            int64_t last) {
  for_parts(shape, first, last, [&](int64_t row, int64_t offset, int64_t count) {
    const int64_t at = 2 * row * shape.run + offset;
    backward_clones(grad + row * shape.run + offset, x + at, x + at + shape.run, grad_x + at,
                    grad_x + at + shape.run, count);
  });
}

#define AICR_INSTANTIATE(T)                                                             \
  template void gelu_gate_run<T>(const GeluGateShape&, const T*, T*, int64_t, int64_t); \
  template void gelu_gate_backward_run<T>(const GeluGateShape&, const T*, const T*, T*, int64_t, int64_t);
AICR_INSTANTIATE(float)
AICR_INSTANTIATE(BFloat16)
AICR_INSTANTIATE(Half)
AICR_INSTANTIATE(double)
#undef AICR_INSTANTIATE

}  // namespace aicr
