// out = dwconv_{Kx1}(GELU(dwconv_{1xK}(GELU(attn)))) * value, zero padding, in one pass.
//
// A piece is a block of rows by a strip of columns of one picture (channels-last) or of one plane. For each
// row the strip goes, in the accumulation type, through GELU, the row convolution and GELU into a ring of the
// last K such rows; once the ring holds the rows around an output row, the column convolution and the product
// follow. Ring and line buffer are sized for the L2 cache: memory sees attn and value read once and out
// written once, except that K - 1 rows per block and K - 1 columns per strip are computed again.
#include "cpu/decoupled_attention_kernel.hpp"

#include <algorithm>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/decoupled_attention_pieces.hpp"
#include "cpu/gelu.hpp"
#include "cpu/tiles.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kStripValues = 12288;  // of one line: K + 1 lines of float take 290 KiB for K = 5

PiecePlan plan_of(const DecoupledAttentionShape& shape) {
  return {map_of(shape), kStripValues};
}

// to[i] = GELU(sum over k of weight[k] * from[i + k * channels])
template <int K, bool kPlanar, typename Acc>
AICR_INLINE void convolve_row(const Acc* __restrict__ from, const Acc* __restrict__ weight,
                              Acc* __restrict__ to, int64_t values, int64_t channels, int64_t tile) {
  for (int64_t at = 0; at < values; at += tile) {
    const int64_t count = std::min(tile, values - at);
    for (int64_t i = 0; i < count; ++i) {
      Acc sum = weight[kPlanar ? 0 : i] * from[at + i];
      for (int k = 1; k < K; ++k) sum += weight[kPlanar ? k : k * tile + i] * from[at + i + k * channels];
      to[at + i] = gelu(sum);
    }
  }
}

template <int K, bool kPlanar, typename T, typename Acc>
AICR_INLINE void run_piece(const PiecePlan& plan, const Piece& piece, const T* attn, const T* value,
                           const Acc* weight_row, const Acc* weight_col, T* out, Acc* scratch) {
  constexpr int64_t R = K / 2;
  const int64_t C = plan.channels, W = plan.width, H = plan.height;
  const int64_t left = piece.left, columns = piece.columns, top = piece.top, bottom = piece.bottom;
  // Columns of the line buffer, which starts R columns left of the strip; outside the picture it stays zero.
  const auto [begin, end] = columns_around(piece, R, W);

  const int64_t line_values = (columns + 2 * R) * C, row_values = columns * C;
  const int64_t tile = kPlanar ? row_values : tile_values(C);
  Acc* line = scratch;
  Acc* ring = scratch + line_values;  // K rows; row h lies in place h mod K
  std::fill(line, line + line_values, Acc(0));

  for (int64_t h = top - R; h < bottom + R; ++h) {
    Acc* row = ring + ((h + K) % K) * row_values;
    if (h < 0 || h >= H) {
      std::fill(row, row + row_values, Acc(0));
    } else {
      const T* __restrict__ from = attn + (h * W + begin) * C;
      Acc* __restrict__ to = line + (begin - left + R) * C;
      for (int64_t i = 0; i < (end - begin) * C; ++i) to[i] = gelu(static_cast<Acc>(from[i]));
      convolve_row<K, kPlanar>(line, weight_row, row, row_values, C, tile);
    }
    const int64_t centre = h - R;
    if (centre < top) continue;
    const Acc* rows[K];
    for (int64_t k = 0; k < K; ++k) rows[k] = ring + ((centre - R + k + K) % K) * row_values;
    const int64_t at = (centre * W + left) * C;
    convolve_lines<K, kPlanar>(rows, weight_col, value + at, out + at, row_values, tile);
  }
}

template <int K, bool kPlanar, typename T, typename Acc>
AICR_INLINE void run_pieces(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                            const Acc* weight_row, const Acc* weight_col, T* out, int64_t first, int64_t last,
                            Acc* scratch) {
  const PiecePlan plan = plan_of(shape);
  const int64_t picture_values = plan.channels * plan.height * plan.width;
  for (int64_t i = first; i < last; ++i) {
    const Piece piece = plan.piece(i);
    const int64_t weights = kPlanar ? piece.picture % shape.channels * K : 0;
    const int64_t at = piece.picture * picture_values;
    run_piece<K, kPlanar>(plan, piece, attn + at, value + at, weight_row + weights, weight_col + weights,
                          out + at, scratch);
  }
}

template <typename T, typename Acc>
AICR_INLINE void run_any(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                         const Acc* weight_row, const Acc* weight_col, T* out, int64_t first, int64_t last,
                         Acc* scratch) {
#define AICR_RUN(K, kPlanar) \
  run_pieces<K, kPlanar>(shape, attn, value, weight_row, weight_col, out, first, last, scratch)
  AICR_FOR_TAPS_AND_LAYOUT(shape, AICR_RUN);
#undef AICR_RUN
}

// target_clones does not go with templates, so the types are spelled out.
#define AICR_DEFINE_CLONES(T, Acc)                                                                        \
  AICR_VECTOR_CLONES void run_clones(const DecoupledAttentionShape& shape, const T* attn, const T* value, \
                                     const Acc* weight_row, const Acc* weight_col, T* out, int64_t first, \
                                     int64_t last, Acc* scratch) {                                        \
    run_any(shape, attn, value, weight_row, weight_col, out, first, last, scratch);                       \
  }
AICR_DEFINE_CLONES(float, float)
AICR_DEFINE_CLONES(BFloat16, float)
AICR_DEFINE_CLONES(Half, float)
#undef AICR_DEFINE_CLONES

void run_clones(const DecoupledAttentionShape& shape, const double* attn, const double* value,
                const double* weight_row, const double* weight_col, double* out, int64_t first, int64_t last,
                double* scratch) {
  run_any(shape, attn, value, weight_row, weight_col, out, first, last, scratch);
}

}  // namespace

int64_t decoupled_attention_pieces(const DecoupledAttentionShape& shape) {
  return plan_of(shape).pieces();
}

template <typename T, typename Acc>
void decoupled_attention_run(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                             const Acc* weight_row, const Acc* weight_col, T* out, int64_t first,
                             int64_t last) {
  const PiecePlan plan = plan_of(shape);
  const int64_t K = shape.taps, C = plan.channels;
  std::vector<Acc> scratch((plan.strip + K - 1) * C + K * plan.strip * C);
  const std::vector<Acc> row = loop_weights(shape, weight_row), col = loop_weights(shape, weight_col);
  run_clones(shape, attn, value, row.data(), col.data(), out, first, last, scratch.data());
}

#define AICR_INSTANTIATE(T, Acc)                                                                    \
  template void decoupled_attention_run<T, Acc>(const DecoupledAttentionShape&, const T*, const T*, \
                                                const Acc*, const Acc*, T*, int64_t, int64_t);
AICR_INSTANTIATE(float, float)
AICR_INSTANTIATE(BFloat16, float)
AICR_INSTANTIATE(Half, float)
AICR_INSTANTIATE(double, double)
#undef AICR_INSTANTIATE

}  // namespace aicr
