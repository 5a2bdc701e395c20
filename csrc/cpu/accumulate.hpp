// The type sums are formed in, and weights converted to it.
#pragma once

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

namespace aicr {

template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

// Gradients of weights leave a kernel in the type they were summed in: float32, or float64 for float64.
inline torch::headeronly::ScalarType accumulate_type(torch::headeronly::ScalarType type) {
  using torch::headeronly::ScalarType;
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <typename Acc, typename T>
void append(const torch::stable::Tensor& weight, std::vector<Acc>& values) {
  const T* data = weight.const_data_ptr<T>();
  values.assign(data, data + weight.numel());
}

// The weight in the accumulation type, in the order of its axes. It is float32 or has the dtype T of the
// feature maps.
template <typename T, typename Acc>
std::vector<Acc> weight_values(const torch::stable::Tensor& weight) {
  const torch::stable::Tensor dense = torch::stable::contiguous(weight);
  std::vector<Acc> values;
  if (dense.scalar_type() == torch::headeronly::ScalarType::Float) {
    append<Acc, float>(dense, values);
  } else {
    append<Acc, T>(dense, values);
  }
  return values;
}

// sums[i] = parts[0][i] + parts[1][i] + ..., always in this order and in double; `values` of them.
template <typename Acc>
void add_parts(const std::vector<Acc>& parts, int64_t values, Acc* sums) {
  std::vector<double> wide(values);
  for (size_t at = 0; at < parts.size(); at += values) {
    for (int64_t i = 0; i < values; ++i) wide[i] += parts[at + i];
  }
  std::transform(wide.begin(), wide.end(), sums, [](double sum) { return static_cast<Acc>(sum); });
}

}  // namespace aicr
