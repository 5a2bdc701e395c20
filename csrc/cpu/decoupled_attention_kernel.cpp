// out = dwconv_{Kx1}(GELU(dwconv_{1xK}(GELU(attn)))) * value, zero padding, in one pass.
//
// A piece is a block of rows by a strip of columns of one picture (channels-last) or of one plane. For each
// row the strip goes, in the accumulation type, through GELU, the row convolution and GELU into a ring of the
// last K such rows; once the ring holds the rows around an output row, the column convolution and the product
// follow. Ring and line buffer are sized for the L2 cache: memory sees attn and value read once and out
// written once, except that K - 1 rows per block and K - 1 columns per strip are computed again.
// decoupled_attention_vectors.hpp has a faster way for some channels-last maps.
#include "cpu/decoupled_attention_kernel.hpp"

#include <algorithm>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/decoupled_attention_pieces.hpp"
#include "cpu/decoupled_attention_vectors.hpp"
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

// Whether vectors are the faster way: where the last pair of them does a few channels again at most.
bool suits_vectors(const DecoupledAttentionShape& shape, int64_t pair_values) {
  const int64_t C = shape.channels;
  return shape.channels_last && C >= pair_values && divide_up(C, pair_values) * pair_values * 4 <= C * 5;
}

template <int kBytes, int K, typename T>
AICR_INLINE void run_pairs(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                           const float* weight_row, const float* weight_col, T* out, int64_t first,
                           int64_t last) {
  using Loops = AttentionVectors<kBytes, K, T>;
  const PiecePlan plan = plan_of(shape);
  const int64_t picture_values = plan.channels * plan.height * plan.width;
  const int64_t weights = Loops::pairs(plan.channels) * Loops::kPairWeights;
  std::vector<float> memory(2 * weights + Loops::memory_values(plan) + kBytes / sizeof(float));
  float* row = aligned_to<kBytes>(memory.data());
  Loops::arrange(weight_row, plan.channels, row);
  Loops::arrange(weight_col, plan.channels, row + weights);
  for (int64_t i = first; i < last; ++i) {
    const Piece piece = plan.piece(i);
    const int64_t at = piece.picture * picture_values;
    Loops::run_piece(plan, piece, attn + at, value + at, row, row + weights, out + at, row + 2 * weights);
  }
}

template <int kBytes, typename T>
AICR_INLINE bool run_any_pairs(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                               const float* weight_row, const float* weight_col, T* out, int64_t first,
                               int64_t last) {
  if constexpr (kBytes < 64) {
    return false;
  } else {
    if (!suits_vectors(shape, Pair<kBytes>::kValues)) return false;
#define AICR_RUN(K) run_pairs<kBytes, K>(shape, attn, value, weight_row, weight_col, out, first, last)
    if (shape.taps == 3) AICR_RUN(3);
    if (shape.taps == 5) AICR_RUN(5);
    if (shape.taps == 7) AICR_RUN(7);
#undef AICR_RUN
    return true;
  }
}

// True if processor and shape were such that the pieces are computed.
#define AICR_DEFINE_VECTORS(T)                                                                  \
  AICR_FOR_EACH_VECTOR(                                                                         \
      bool run_vectors(const DecoupledAttentionShape& shape, const T* attn, const T* value,     \
                       const float* weight_row, const float* weight_col, T* out, int64_t first, \
                       int64_t last),                                                           \
      return run_any_pairs<kBytes>(shape, attn, value, weight_row, weight_col, out, first, last);)
AICR_DEFINE_VECTORS(float)
AICR_DEFINE_VECTORS(BFloat16)
#undef AICR_DEFINE_VECTORS

template <typename T, typename Acc>
bool run_vectors(const DecoupledAttentionShape&, const T*, const T*, const Acc*, const Acc*, T*, int64_t,
                 int64_t) {
  return false;
}

}  // namespace

int64_t decoupled_attention_pieces(const DecoupledAttentionShape& shape) {
  return plan_of(shape).pieces();
}

template <typename T, typename Acc>
void decoupled_attention_run(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                             const Acc* weight_row, const Acc* weight_col, T* out, int64_t first,
                             int64_t last) {
  if (run_vectors(shape, attn, value, weight_row, weight_col, out, first, last)) return;
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
