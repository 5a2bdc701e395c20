// How decoupled_attention and its derivative cut their work, and what their loops have in common. No torch
// here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/decoupled_attention_kernel.hpp"
#include "cpu/tiles.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {

// A block of rows by a strip of columns of one picture (channels-last) or of one plane.
struct DecoupledAttentionPiece {
  int64_t picture;        // or plane
  int64_t left, columns;  // of the strip
  int64_t top, bottom;    // rows top <= h < bottom
};

// How a shape is cut. A plane is a picture with one channel.
struct DecoupledAttentionPlan {
  static constexpr int64_t kBlockRows = 32, kSmallBlockRows = 16;
  static constexpr int64_t kFewPieces = 16;  // fewer are cut into smaller blocks, for the sake of the threads
  static constexpr int64_t kMinStripColumns = 16;

  int64_t pictures, channels, height, width, strip, strips, block_rows, blocks;

  // strip_values: of one line of a strip, which decides how much working memory a piece takes.
  DecoupledAttentionPlan(const DecoupledAttentionShape& s, int64_t strip_values)
      : pictures(s.channels_last ? s.batch : s.batch * s.channels),
        channels(s.channels_last ? s.channels : 1),
        height(s.height),
        width(s.width),
        strip(std::min(width, std::max(kMinStripColumns, strip_values / std::max<int64_t>(channels, 1)))),
        strips(strip > 0 ? divide_up(width, strip) : 0),
        block_rows(pictures * strips * divide_up(height, kBlockRows) < kFewPieces ? kSmallBlockRows
                                                                                  : kBlockRows),
        blocks(divide_up(height, block_rows)) {}

  int64_t pieces() const { return channels > 0 ? pictures * blocks * strips : 0; }

  DecoupledAttentionPiece piece(int64_t index) const {
    const int64_t left = index % strips * strip, top = index / strips % blocks * block_rows;
    return {index / strips / blocks, left, std::min(strip, width - left), top,
            std::min(top + block_rows, height)};
  }
};

// Columns begin <= w < end of a picture.
struct ColumnRange {
  int64_t begin, end;
};

// Those of a piece and `reach` more on each side, as far as the picture goes.
inline ColumnRange columns_around(const DecoupledAttentionPiece& piece, int64_t reach, int64_t width) {
  return {std::max<int64_t>(piece.left - reach, 0), std::min(piece.left + piece.columns + reach, width)};
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
