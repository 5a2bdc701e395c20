// What the integer operators ask of their arguments, on every device.
#pragma once

#include <initializer_list>
#include <optional>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "common/integer.hpp"

namespace aicr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_integer(const char* op, const char* name, const Tensor& tensor, ScalarType type,
                          const Tensor& like) {
  STD_TORCH_CHECK(tensor.scalar_type() == type, op, ": ", name, " must be ", type, ", got ",
                  tensor.scalar_type());
  STD_TORCH_CHECK(tensor.device() == like.device(), op, ": ", name,
                  " must be on the device of the first argument");
}

// One int32 number for each of `channels`.
inline void check_per_channel(const char* op, const char* name, const Tensor& tensor, int64_t channels,
                              const Tensor& like) {
  check_integer(op, name, tensor, ScalarType::Int, like);
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == channels, op, ": ", name, " must have the shape (",
                  channels, ",)");
}

inline void check_integer_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 const Tensor& shift, const Tensor& slope,
                                 const std::optional<Tensor>& residual,
                                 const std::optional<Tensor>& residual_shift) {
  const char* op = "integer_linear";
  check_integer(op, "x", x, ScalarType::Short, x);
  check_integer(op, "weight", weight, ScalarType::Short, x);
  STD_TORCH_CHECK(
      x.dim() >= 1 && weight.dim() == 3 && weight.size(2) == 2 && x.size(x.dim() - 1) == 2 * weight.size(0),
      op, ": expected x (..., K) and weight (K / 2, O, 2)");
  const int64_t outputs = weight.size(1);
  check_per_channel(op, "bias", bias, outputs, x);
  check_per_channel(op, "shift", shift, outputs, x);
  check_per_channel(op, "slope", slope, outputs, x);
  STD_TORCH_CHECK(residual.has_value() == residual_shift.has_value(), op,
                  ": residual and residual_shift come together or not at all");
  if (!residual.has_value()) return;
  check_integer(op, "residual", *residual, ScalarType::Short, x);
  bool same = residual->dim() == x.dim() && residual->size(x.dim() - 1) == outputs;
  for (int64_t axis = 0; same && axis + 1 < x.dim(); ++axis) same = residual->size(axis) == x.size(axis);
  STD_TORCH_CHECK(same, op, ": residual must have the shape of the result");
  check_per_channel(op, "residual_shift", *residual_shift, outputs, x);
}

inline void check_integer_depthwise(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                    const Tensor& shift) {
  const char* op = "integer_depthwise";
  check_integer(op, "x", x, ScalarType::Short, x);
  check_integer(op, "weight", weight, ScalarType::Short, x);
  STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 2 && weight.size(0) == 9 && weight.size(1) == x.size(2), op,
                  ": expected x (H, W, C) and weight (9, C)");
  check_per_channel(op, "bias", bias, x.size(2), x);
  check_per_channel(op, "shift", shift, x.size(2), x);
}

inline void check_halves(const char* op, const Tensor& x) {
  check_integer(op, "x", x, ScalarType::Short, x);
  STD_TORCH_CHECK(x.dim() >= 1 && x.size(x.dim() - 1) % 2 == 0, op,
                  ": x must have an even number of channels");
}

inline void check_gate_shift(int64_t shift) {
  STD_TORCH_CHECK(shift >= 1 && shift <= 30, "integer_gate: shift must be 1 to 30, got ", shift);
}

inline void check_integer_asinh(const Tensor& value, const Tensor& exponent, const Tensor& table) {
  const char* op = "integer_asinh";
  check_integer(op, "value", value, ScalarType::Int, value);
  STD_TORCH_CHECK(value.dim() >= 1, op, ": value must have a dimension of channels");
  check_per_channel(op, "exponent", exponent, value.size(value.dim() - 1), value);
  check_per_channel(op, "table", table, kAsinhTable, value);
}

}  // namespace aicr
