// The derivative of decoupled_attention in one pass. With
//
//   a = GELU(attn),  r = dwconv_{1xK}(a),  b = GELU(r),  c = dwconv_{Kx1}(b),  out = c * value
//
// and u = grad * value:
//
//   grad_value = grad * c                                grad_weight_col[k] = sum of u[h] * b[h + k - R]
//   s = GELU'(r) * sum over k of weight_col[k] * u[h + R - k]
//   grad_attn = GELU'(attn) * sum over k of weight_row[k] * s[w + R - k]
//                                                        grad_weight_row[k] = sum of s[w] * a[w + k - R]
//
// A piece is a block of rows by a strip of columns of one picture (channels-last) or of one plane, as in the
// forward pass. For each row the strip goes, in the accumulation type, into rings of the last rows: K of u
// and b, R + 1 of the others; once they hold the rows around an output row, its gradients follow. The rings
// are sized for the L2 cache. What an output needs from beyond the piece, R rows and up to 2R columns on each
// side, is computed again. The sums over pixels are added up per piece, and by the caller in the order of the
// pieces.
#include "cpu/decoupled_attention_backward_kernel.hpp"

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

constexpr int64_t kStripValues = 4096;  // of one line: 20 lines of float take 330 KiB for K = 5

PiecePlan plan_of(const DecoupledAttentionShape& shape) {
  return {map_of(shape), kStripValues};
}

// The working memory of a piece, in lines. Columns beside the strip are kept where a convolution reads them:
// 2R on each side of a, R of the others. Those outside the picture are zero in a and u.
template <int K, typename Acc>
struct Lines {
  static constexpr int64_t R = K / 2;
  const int64_t middle, wide;  // values of a line with R and with 2R columns on each side
  Acc *a, *attn_slope;         // GELU(attn) and GELU'(attn), of R + 1 rows
  Acc* row_slope;              // GELU'(r), of R + 1 rows
  Acc *b, *u;                  // of K rows
  Acc *s, *sums;               // s of one row; the sums of the weights' gradients, [2][K][tile]

  static int64_t values(int64_t columns, int64_t channels, int64_t tile) {
    const int64_t middle = (columns + 2 * R) * channels, wide = (columns + 4 * R) * channels;
    return (R + 1) * (2 * wide + middle) + (2 * K + 1) * middle + 2 * K * tile;
  }

  Lines(int64_t columns, int64_t channels, int64_t tile, Acc* memory)
      : middle((columns + 2 * R) * channels), wide((columns + 4 * R) * channels) {
    a = memory;
    attn_slope = a + (R + 1) * wide;
    row_slope = attn_slope + (R + 1) * wide;
    b = row_slope + (R + 1) * middle;
    u = b + K * middle;
    s = u + K * middle;
    sums = s + middle;
    std::fill(memory, sums + 2 * K * tile, Acc(0));
  }

  // Where the lines of row h >= -R begin.
  int64_t of_few(int64_t h, int64_t line) const { return (h + R + 1) % (R + 1) * line; }
  int64_t of_many(int64_t h) const { return (h + K) % K * middle; }
};

// GELU and its slope of `values` values.
template <typename T, typename Acc>
AICR_INLINE void activate(const T* __restrict__ attn, Acc* __restrict__ a, Acc* __restrict__ slope,
                          int64_t values) {
  for (int64_t i = 0; i < values; ++i) {
    const Acc x = static_cast<Acc>(attn[i]);
    a[i] = gelu(x);
    slope[i] = gelu_slope(x);
  }
}

// b = GELU(r) and GELU'(r), r[i] = sum over k of weight[k] * a[i + k * channels].
template <int K, bool kPlanar, typename Acc>
AICR_INLINE void convolve_row(const Acc* __restrict__ a, const Acc* __restrict__ weight, Acc* __restrict__ b,
                              Acc* __restrict__ slope, int64_t values, int64_t channels, int64_t tile) {
  for (int64_t at = 0; at < values; at += tile) {
    const int64_t count = std::min(tile, values - at);
    for (int64_t i = 0; i < count; ++i) {
      Acc r = weight[kPlanar ? 0 : i] * a[at + i];
      for (int k = 1; k < K; ++k) r += weight[kPlanar ? k : k * tile + i] * a[at + i + k * channels];
      b[at + i] = gelu(r);
      slope[at + i] = gelu_slope(r);
    }
  }
}

// sums[k] += up[i] * lines[k][i], for each place in the tile, or, of a plane, over all i.
template <int K, bool kPlanar, typename Acc>
AICR_INLINE void add_products(const Acc* __restrict__ up, const Acc* const* lines, Acc* __restrict__ sums,
                              int64_t values, int64_t tile) {
  if (kPlanar) {
    for (int k = 0; k < K; ++k) {
      const Acc* __restrict__ line = lines[k];
      Acc sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < values; ++i) sum += up[i] * line[i];
      sums[k] += sum;
    }
    return;
  }
  for (int64_t at = 0; at < values; at += tile) {
    const int64_t count = std::min(tile, values - at);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      for (int k = 0; k < K; ++k) sums[k * tile + i] += up[at + i] * lines[k][at + i];
    }
  }
}

template <int K, bool kPlanar, typename T, typename Acc>
AICR_INLINE void run_piece(const PiecePlan& plan, const Piece& piece, const T* grad, const T* attn,
                           const T* value, const Acc* weight_row, const Acc* weight_col, T* grad_attn,
                           T* grad_value, Acc* part, Acc* memory) {
  constexpr int64_t R = K / 2;
  const int64_t C = plan.channels, W = plan.width, H = plan.height;
  const int64_t left = piece.left, columns = piece.columns, values = columns * C;
  const int64_t top = piece.top, bottom = piece.bottom;
  const int64_t tile = kPlanar ? 1 : tile_values(C), run = kPlanar ? values + 2 * R : tile;
  const Lines<K, Acc> lines(columns, C, tile, memory);

  // The columns inside the picture of lines that start 2R and R columns left of the strip.
  const auto [wide_begin, wide_end] = columns_around(piece, 2 * R, W);
  const auto [begin, end] = columns_around(piece, R, W);
  const int64_t wide_skip = (wide_begin - left + 2 * R) * C, skip = (begin - left + R) * C;

  for (int64_t h = top - R; h < bottom + R; ++h) {
    Acc *b = lines.b + lines.of_many(h), *u = lines.u + lines.of_many(h);
    if (h < 0 || h >= H) {
      std::fill(b, b + lines.middle, Acc(0));
      std::fill(u, u + lines.middle, Acc(0));
    } else {
      Acc* a = lines.a + lines.of_few(h, lines.wide);
      activate(attn + (h * W + wide_begin) * C, a + wide_skip,
               lines.attn_slope + lines.of_few(h, lines.wide) + wide_skip, (wide_end - wide_begin) * C);
      convolve_row<K, kPlanar>(a, weight_row, b, lines.row_slope + lines.of_few(h, lines.middle),
                               lines.middle, C, run);
      const T* __restrict__ g = grad + (h * W + begin) * C;
      const T* __restrict__ v = value + (h * W + begin) * C;
      Acc* __restrict__ product = u + skip;
      for (int64_t i = 0; i < (end - begin) * C; ++i) {
        product[i] = static_cast<Acc>(g[i]) * static_cast<Acc>(v[i]);
      }
    }
    const int64_t centre = h - R;
    if (centre < top) continue;

    const int64_t at = (centre * W + left) * C, few_wide = lines.of_few(centre, lines.wide);
    const Acc *taps[K], *flipped[K];
    for (int64_t k = 0; k < K; ++k) {
      taps[k] = lines.b + lines.of_many(centre - R + k) + R * C;
      flipped[k] = lines.u + lines.of_many(centre + R - k);
    }
    convolve_lines<K, kPlanar>(taps, weight_col, grad + at, grad_value + at, values, run);
    add_products<K, kPlanar>(flipped[R] + R * C, taps, lines.sums + K * tile, values, run);
    convolve_lines<K, kPlanar>(flipped, weight_col, lines.row_slope + lines.of_few(centre, lines.middle),
                               lines.s, lines.middle, run);
    for (int64_t k = 0; k < K; ++k) {
      taps[k] = lines.a + few_wide + (R + k) * C;
      flipped[k] = lines.s + (2 * R - k) * C;
    }
    add_products<K, kPlanar>(lines.s + R * C, taps, lines.sums, values, run);
    convolve_lines<K, kPlanar>(flipped, weight_row, lines.attn_slope + few_wide + 2 * R * C, grad_attn + at,
                               values, run);
  }

  std::fill(part, part + 2 * K * C, Acc(0));
  for (int64_t k = 0; k < 2 * K; ++k) {
    for (int64_t i = 0; i < tile; ++i) part[k * C + i % C] += lines.sums[k * tile + i];
  }
}

template <int K, bool kPlanar, typename T, typename Acc>
AICR_INLINE void run_pieces(const DecoupledAttentionShape& shape, const T* grad, const T* attn,
                            const T* value, const Acc* weight_row, const Acc* weight_col, T* grad_attn,
                            T* grad_value, Acc* parts, int64_t first, int64_t last, Acc* memory) {
  const PiecePlan plan = plan_of(shape);
  const int64_t picture_values = plan.channels * plan.height * plan.width;
  for (int64_t i = first; i < last; ++i) {
    const Piece piece = plan.piece(i);
    const int64_t weights = kPlanar ? piece.picture % shape.channels * K : 0;
    const int64_t at = piece.picture * picture_values;
    run_piece<K, kPlanar>(plan, piece, grad + at, attn + at, value + at, weight_row + weights,
                          weight_col + weights, grad_attn + at, grad_value + at,
                          parts + i * 2 * K * plan.channels, memory);
  }
}

template <typename T, typename Acc>
AICR_INLINE void run_any(const DecoupledAttentionShape& shape, const T* grad, const T* attn, const T* value,
                         const Acc* weight_row, const Acc* weight_col, T* grad_attn, T* grad_value,
                         Acc* parts, int64_t first, int64_t last, Acc* memory) {
#define AICR_RUN(K, kPlanar)                                                                             \
  run_pieces<K, kPlanar>(shape, grad, attn, value, weight_row, weight_col, grad_attn, grad_value, parts, \
                         first, last, memory)
  AICR_FOR_TAPS_AND_LAYOUT(shape, AICR_RUN);
#undef AICR_RUN
}

// target_clones does not go with templates, so the types are spelled out.
#define AICR_DEFINE_CLONES(T, Acc)                                                                         \
  AICR_VECTOR_CLONES void run_clones(const DecoupledAttentionShape& shape, const T* grad, const T* attn,   \
                                     const T* value, const Acc* weight_row, const Acc* weight_col,         \
                                     T* grad_attn, T* grad_value, Acc* parts, int64_t first, int64_t last, \
                                     Acc* memory) {                                                        \
    run_any(shape, grad, attn, value, weight_row, weight_col, grad_attn, grad_value, parts, first, last,   \
            memory);                                                                                       \
  }
AICR_DEFINE_CLONES(float, float)
AICR_DEFINE_CLONES(BFloat16, float)
AICR_DEFINE_CLONES(Half, float)
#undef AICR_DEFINE_CLONES

void run_clones(const DecoupledAttentionShape& shape, const double* grad, const double* attn,
                const double* value, const double* weight_row, const double* weight_col, double* grad_attn,
                double* grad_value, double* parts, int64_t first, int64_t last, double* memory) {
  run_any(shape, grad, attn, value, weight_row, weight_col, grad_attn, grad_value, parts, first, last,
          memory);
}

template <typename Acc>
int64_t memory_values(const DecoupledAttentionShape& shape, int64_t columns, int64_t channels, int64_t tile) {
  if (shape.taps == 3) return Lines<3, Acc>::values(columns, channels, tile);
  if (shape.taps == 5) return Lines<5, Acc>::values(columns, channels, tile);
  return Lines<7, Acc>::values(columns, channels, tile);
}

}  // namespace

int64_t decoupled_attention_backward_pieces(const DecoupledAttentionShape& shape) {
  return plan_of(shape).pieces();
}

int64_t decoupled_attention_backward_part(const DecoupledAttentionShape& shape) {
  return 2 * shape.taps * plan_of(shape).channels;
}

int64_t decoupled_attention_backward_channel(const DecoupledAttentionShape& shape, int64_t piece) {
  return shape.channels_last ? 0 : plan_of(shape).piece(piece).picture % shape.channels;
}

template <typename T, typename Acc>
void decoupled_attention_backward_run(const DecoupledAttentionShape& shape, const T* grad, const T* attn,
                                      const T* value, const Acc* weight_row, const Acc* weight_col,
                                      T* grad_attn, T* grad_value, Acc* parts, int64_t first, int64_t last) {
  const PiecePlan plan = plan_of(shape);
  const int64_t C = plan.channels, tile = shape.channels_last ? tile_values(C) : 1;
  std::vector<Acc> memory(memory_values<Acc>(shape, plan.strip, C, tile));
  const std::vector<Acc> row = loop_weights(shape, weight_row), col = loop_weights(shape, weight_col);
  run_clones(shape, grad, attn, value, row.data(), col.data(), grad_attn, grad_value, parts, first, last,
             memory.data());
}

#define AICR_INSTANTIATE(T, Acc)                                                                             \
  template void decoupled_attention_backward_run<T, Acc>(const DecoupledAttentionShape&, const T*, const T*, \
                                                         const T*, const Acc*, const Acc*, T*, T*, Acc*,     \
                                                         int64_t, int64_t);
AICR_INSTANTIATE(float, float)
AICR_INSTANTIATE(BFloat16, float)
AICR_INSTANTIATE(Half, float)
AICR_INSTANTIATE(double, double)
#undef AICR_INSTANTIATE

}  // namespace aicr
