// What the operators of the entropy coder ask of their arguments, on every device.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <vector>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "common/rans_state.hpp"

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

// The lists of rans_encode; returns how many streams there are.
inline int64_t check_encode(const std::vector<Tensor>& symbols, const std::vector<Tensor>& index,
                            const std::vector<Tensor>& tables, const std::vector<Tensor>& splits,
                            int64_t lanes) {
  const char* op = "rans_encode";
  const size_t segments = symbols.size();
  if (segments == 0 || index.size() != segments || tables.size() != segments || splits.size() != segments) {
    refuse(op, ": symbols, index, tables and splits must be lists of one length, at least 1, got ", segments,
           ", ", index.size(), ", ", tables.size(), " and ", splits.size());
  }
  if (lanes != 0 && lanes != kNarrowLanes && lanes != kWideLanes) {
    refuse(op, ": lanes must be 8, 32 or 0 (automatic), got ", lanes);
  }
  const int64_t streams = splits[0].dim() == 1 ? splits[0].numel() - 1 : -1;
  if (streams < 1) refuse(op, ": splits must have one dimension and at least two positions");
  for (size_t g = 0; g < segments; ++g) {
    check_vector(op, "symbols", symbols[g], ScalarType::Short, symbols[0]);
    check_segment(op, index[g], tables[g], splits[g], symbols[0]);
    if (symbols[g].numel() != index[g].numel()) {
      refuse(op, ": symbols and index must have one length, got ", symbols[g].numel(), " and ",
             index[g].numel(), " in segment ", g);
    }
  }
  return streams;
}

[[noreturn]] inline void refuse_splits(const char* op, int64_t streams, int64_t count) {
  refuse(op, ": splits must be ", streams + 1, " positions that rise from 0 to the length of the segment, ",
         count);
}

inline void check_state_place(const char* op, const Tensor& state) {
  if (reinterpret_cast<uintptr_t>(state.const_data_ptr()) % alignof(StreamState) != 0) {
    refuse(op, ": state must lie at a multiple of ", alignof(StreamState), " bytes");
  }
}

}  // namespace aicr
