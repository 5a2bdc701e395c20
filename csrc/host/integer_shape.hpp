// Shapes of the integer operators' tensors (..., C).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

namespace aicr {

// An int16 tensor of the shape of `like`, with another number of channels, on its device.
inline torch::stable::Tensor with_channels(const torch::stable::Tensor& like, int64_t channels) {
  std::vector<int64_t> size;
  for (int64_t axis = 0; axis + 1 < like.dim(); ++axis) size.push_back(like.size(axis));
  size.push_back(channels);
  return torch::stable::empty(size, torch::headeronly::ScalarType::Short, std::nullopt, like.device());
}

inline int64_t pixels_of(const torch::stable::Tensor& x) {
  int64_t pixels = 1;
  for (int64_t axis = 0; axis + 1 < x.dim(); ++axis) pixels *= x.size(axis);
  return pixels;
}

}  // namespace aicr
