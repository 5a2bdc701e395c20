// What the loops of decoupled_attention and of its derivative have in common. No torch here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/decoupled_attention_kernel.hpp"
#include "cpu/pieces.hpp"
#include "cpu/tiles.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {

inline MapShape map_of(const DecoupledAttentionShape& s) {
  return {s.batch, s.channels, s.height, s.width, s.channels_last};
}

// Weights [channels][taps] as the loops read them: channels-last in tiles, for planes as they are.
template <typename Acc>
std::vector<Acc> loop_weights(const DecoupledAttentionShape& shape, const Acc* weight) {
  if (shape.channels_last) return tiled_weights(weight, shape.taps, shape.channels);
  return std::vector<Acc>(weight, weight + shape.channels * shape.taps);
}

// out[i] = factor[i] * sum over k of weight[k] * lines[k][i]
template <int K, bool kPlanar, typename F, typename T, typename Acc>
AICR_INLINE void convolve_lines(const Acc* const* lines, const Acc* __restrict__ weight,
                                const F* __restrict__ factor, T* __restrict__ out, int64_t values,
                                int64_t tile) {
  for (int64_t at = 0; at < values; at += tile) {
    const int64_t count = std::min(tile, values - at);
    for (int64_t i = 0; i < count; ++i) {
      Acc sum = weight[kPlanar ? 0 : i] * lines[0][at + i];
      for (int k = 1; k < K; ++k) sum += weight[kPlanar ? k : k * tile + i] * lines[k][at + i];
      out[at + i] = static_cast<T>(sum * static_cast<Acc>(factor[at + i]));
    }
  }
}

}  // namespace aicr

// RUN(taps, planar) with the two as constants. A macro, because what is to be compiled for several
// instruction sets has to be inlined into the function that is.
#define AICR_FOR_TAPS_AND_LAYOUT(shape, RUN) \
  if ((shape).channels_last) {               \
    if ((shape).taps == 3) RUN(3, false);    \
    if ((shape).taps == 5) RUN(5, false);    \
    if ((shape).taps == 7) RUN(7, false);    \
  } else {                                   \
    if ((shape).taps == 3) RUN(3, true);     \
    if ((shape).taps == 5) RUN(5, true);     \
    if ((shape).taps == 7) RUN(7, true);     \
  }
