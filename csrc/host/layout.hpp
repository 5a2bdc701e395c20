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

}  // namespace aicr
