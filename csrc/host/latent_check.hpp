// What the operators of a coding step ask of their arguments, on every device.
#pragma once

#include <optional>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "common/latent.hpp"
#include "host/integer_check.hpp"
#include "host/integer_shape.hpp"

namespace aicr {

// A map (B, H, W, C) on the device of the first argument.
inline void check_map(const char* op, const char* name, const Tensor& map, ScalarType type,
                      const Tensor& first) {
  check_integer(op, name, map, type, first);
  STD_TORCH_CHECK(map.dim() == 4, op, ": ", name, " must have the shape (B, H, W, C), got ", map.dim(),
                  " dimension(s)");
}

inline void check_pixels(const char* op, const char* name, const Tensor& map, const char* as,
                         const Tensor& like) {
  bool same = true;
  for (int axis = 0; axis < 3; ++axis) same = same && map.size(axis) == like.size(axis);
  STD_TORCH_CHECK(same, op, ": ", name, " must have the pictures, rows and columns of ", as);
}

inline void check_even(const char* op, int64_t channels) {
  STD_TORCH_CHECK(channels >= 0 && channels % 2 == 0, op,
                  ": the number of channels must be even and not negative, got ", channels);
}

inline void check_channels(const char* op, const char* name, const Tensor& map, int64_t least) {
  STD_TORCH_CHECK(map.size(3) >= least, op, ": ", name, " must have at least ", least, " channels, got ",
                  map.size(3));
}

inline void check_step(const char* op, const std::optional<Tensor>& step, const char* as, const Tensor& map) {
  if (!step.has_value()) return;
  check_map(op, "step", *step, ScalarType::Short, map);
  check_pixels(op, "step", *step, as, map);
  check_channels(op, "step", *step, map.size(3));
}

// A number for each scale level.
inline void check_per_level(const char* op, const char* name, const std::optional<Tensor>& numbers,
                            const Tensor& first) {
  if (!numbers.has_value()) return;
  check_integer(op, name, *numbers, ScalarType::Float, first);
  STD_TORCH_CHECK(numbers->dim() == 1 && numbers->size(0) == kScaleLevels, op, ": ", name,
                  " must have the shape (", kScaleLevels, ",)");
}

inline void check_latent_scale_index(const Tensor& parameters, int64_t channels) {
  const char* op = "latent_scale_index";
  check_map(op, "parameters", parameters, ScalarType::Short, parameters);
  check_even(op, channels);
  STD_TORCH_CHECK(channels <= parameters.size(3), op, ": parameters must have at least ", channels,
                  " channels, got ", parameters.size(3));  // and twice as many is no overflow
  check_channels(op, "parameters", parameters, 2 * channels);
}

inline void check_latent_quantise(const Tensor& y, const Tensor& parameters, const Tensor& exponent,
                                  const std::optional<Tensor>& step, const std::optional<Tensor>& zones,
                                  const std::optional<Tensor>& noise,
                                  const std::optional<Tensor>& variances) {
  const char* op = "latent_quantise";
  check_map(op, "y", y, ScalarType::Float, y);
  check_even(op, y.size(3));
  check_map(op, "parameters", parameters, ScalarType::Short, y);
  check_pixels(op, "parameters", parameters, "y", y);
  check_channels(op, "parameters", parameters, 2 * y.size(3));
  check_per_channel(op, "exponent", exponent, y.size(3), y);
  check_step(op, step, "y", y);
  check_per_level(op, "zones", zones, y);
  check_per_level(op, "variances", variances, y);
  STD_TORCH_CHECK(noise.has_value() == variances.has_value(), op, ": noise and variances must come together");
  if (!noise.has_value()) return;
  check_map(op, "noise", *noise, ScalarType::Float, y);
  check_pixels(op, "noise", *noise, "y", y);
  STD_TORCH_CHECK(noise->size(3) == y.size(3), op, ": noise must have ", y.size(3), " channels, got ",
                  noise->size(3));
}

inline void check_latent_accept(const Tensor& symbols, const Tensor& parameters, const Tensor& exponent,
                                const std::optional<Tensor>& values) {
  const char* op = "latent_accept";
  check_integer(op, "symbols", symbols, ScalarType::Short, symbols);
  check_map(op, "parameters", parameters, ScalarType::Short, symbols);
  STD_TORCH_CHECK(exponent.dim() == 1, op, ": exponent must have the shape (C,), got ", exponent.dim(),
                  " dimension(s)");
  const int64_t channels = exponent.size(0);
  check_even(op, channels);
  check_per_channel(op, "exponent", exponent, channels, symbols);
  check_channels(op, "parameters", parameters, 2 * channels);
  const int64_t there = pixels_of(parameters) * (channels / 2);
  STD_TORCH_CHECK(symbols.dim() == 1 && symbols.size(0) == there, op, ": symbols must have the shape (",
                  there, ",)");
  if (!values.has_value()) return;
  check_map(op, "values", *values, ScalarType::Int, symbols);
  check_pixels(op, "values", *values, "parameters", parameters);
  STD_TORCH_CHECK(values->size(3) == channels, op, ": values must have ", channels, " channels, got ",
                  values->size(3));
}

inline void check_latent_dequantise(const Tensor& values, const Tensor& exponent,
                                    const std::optional<Tensor>& step) {
  const char* op = "latent_dequantise";
  check_map(op, "values", values, ScalarType::Int, values);
  check_even(op, values.size(3));
  check_per_channel(op, "exponent", exponent, values.size(3), values);
  check_step(op, step, "values", values);
}

}  // namespace aicr
