// What the operators of the entropy coder ask of their arguments, on every device.
#pragma once

#include <sstream>
#include <stdexcept>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "common/rans_stream.hpp"

namespace aicr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kStateColumns = sizeof(StreamState) / sizeof(int32_t);

// Without the place in this file, unlike STD_TORCH_CHECK: most of these texts are about numbers of the
// caller.
template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  throw std::invalid_argument(text.str());
}

inline void check_vector(const char* op, const char* name, const Tensor& tensor, ScalarType type,
                         const Tensor& like) {
  if (tensor.scalar_type() != type || tensor.dim() != 1) {
    refuse(op, ": ", name, " must be ", type, " with one dimension, got ", tensor.scalar_type(), " with ",
           tensor.dim());
  }
  if (!(tensor.device() == like.device())) {
    refuse(op, ": ", name, " must be on the device of the first argument");
  }
}

inline void check_state(const char* op, const Tensor& state) {
  if (state.scalar_type() != ScalarType::Int || state.dim() != 2 || state.size(1) != kStateColumns ||
      !state.is_contiguous()) {
    refuse(op, ": state must be contiguous Int of shape (S, ", kStateColumns, "), got ", state.scalar_type(),
           " with ", state.dim(), " dimension(s)");
  }
}

// Symbols and table indices of a segment and where it is cut.
inline void check_segment(const char* op, const Tensor& index, const Tensor& tables, const Tensor& splits,
                          const Tensor& like) {
  check_vector(op, "index", index, ScalarType::Byte, like);
  check_vector(op, "tables", tables, ScalarType::Int, like);
  check_vector(op, "splits", splits, ScalarType::Long, like);
}

}  // namespace aicr
