// Memory layouts of four-dimensional tensors, which the stable ABI leaves to its users.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>

namespace aicr {

// Whether results should lie channels-last as `x` does. True if channels are the fastest axis and the others
// follow in the order width, height; also for a view of such a tensor that is not dense.
// aicr_ext/ops/layout.py says the same to the compiler, and the two must agree.
inline bool prefers_channels_last(const torch::stable::Tensor& x) {
  return !x.is_contiguous() && x.stride(1) == 1 && x.stride(3) >= x.size(1) &&
         x.stride(2) >= x.size(3) * x.stride(3);
}

// `x` itself if it is dense in that layout, otherwise a copy.
inline torch::stable::Tensor in_layout(const torch::stable::Tensor& x, bool channels_last) {
  return torch::stable::contiguous(x, channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                                    : torch::headeronly::MemoryFormat::Contiguous);
}

// `x` itself where pixels (channels-last) or planes lie at one step from one another within a picture, which
// half of a map's channels and some of its rows do; otherwise a dense copy.
inline torch::stable::Tensor readable(const torch::stable::Tensor& x, bool channels_last) {
  const int64_t height = x.size(2), width = x.size(3);
  const bool rows_follow = height <= 1 || width <= 1 || x.stride(2) == width * x.stride(3);
  const bool pixels_follow = (width <= 1 || x.stride(3) == 1) && (height <= 1 || x.stride(2) == width);
  const bool as_it_is = channels_last ? x.stride(1) == 1 && rows_follow : pixels_follow;
  return as_it_is ? x : in_layout(x, channels_last);
}

// Values from one pixel to the next of what is readable channels-last.
inline int64_t pixel_step(const torch::stable::Tensor& x) {
  return x.size(3) > 1 ? x.stride(3) : x.stride(2);
}

}  // namespace aicr
