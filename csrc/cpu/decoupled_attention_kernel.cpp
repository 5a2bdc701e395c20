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

#include "cpu/gelu.hpp"
#include "cpu/tiles.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kBlockRows = 32, kSmallBlockRows = 16;
constexpr int64_t kFewPieces =
    16;  // fewer than this are cut into smaller blocks, for the sake of the threads
constexpr int64_t kStripValues = 12288;  // of one line: K + 1 lines of float take 290 KiB for K = 5
constexpr int64_t kMinStripColumns = 16;

// How a shape is cut. A plane is a picture with one channel.
struct Plan {
  int64_t pictures, channels, height, width, strip, strips, block_rows, blocks;

  explicit Plan(const DecoupledAttentionShape& s)
      : pictures(s.channels_last ? s.batch : s.batch * s.channels),
        channels(s.channels_last ? s.channels : 1),
        height(s.height),
        width(s.width),
        strip(std::min(width, std::max(kMinStripColumns, kStripValues / std::max<int64_t>(channels, 1)))),
        strips(strip > 0 ? divide_up(width, strip) : 0),
        block_rows(pictures * strips * divide_up(height, kBlockRows) < kFewPieces ? kSmallBlockRows
                                                                                  : kBlockRows),
        blocks(divide_up(height, block_rows)) {}

  int64_t pieces() const { return channels > 0 ? pictures * blocks * strips : 0; }
};

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

// out[i] = value[i] * sum over k of weight[k] * rows[k][i]
template <int K, bool kPlanar, typename T, typename Acc>
AICR_INLINE void convolve_column(const Acc* const* rows, const Acc* __restrict__ weight,
                                 const T* __restrict__ value, T* __restrict__ out, int64_t values,
                                 int64_t tile) {
  for (int64_t at = 0; at < values; at += tile) {
    const int64_t count = std::min(tile, values - at);
    for (int64_t i = 0; i < count; ++i) {
      Acc sum = weight[kPlanar ? 0 : i] * rows[0][at + i];
      for (int k = 1; k < K; ++k) sum += weight[kPlanar ? k : k * tile + i] * rows[k][at + i];
      out[at + i] = static_cast<T>(sum * static_cast<Acc>(value[at + i]));
    }
  }
}

template <int K, bool kPlanar, typename T, typename Acc>
AICR_INLINE void run_piece(const Plan& plan, const T* attn, const T* value, const Acc* weight_row,
                           const Acc* weight_col, T* out, int64_t block, int64_t strip, Acc* scratch) {
  constexpr int64_t R = K / 2;
  const int64_t C = plan.channels, W = plan.width, H = plan.height;
  const int64_t left = strip * plan.strip, columns = std::min(plan.strip, W - left);
  const int64_t top = block * plan.block_rows, bottom = std::min(top + plan.block_rows, H);
  // Columns of the line buffer, which starts R columns left of the strip; outside the picture it stays zero.
  const int64_t begin = std::max<int64_t>(left - R, 0), end = std::min(left + columns + R, W);

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
    convolve_column<K, kPlanar>(rows, weight_col, value + at, out + at, row_values, tile);
  }
}

template <int K, bool kPlanar, typename T, typename Acc>
AICR_INLINE void run_pieces(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                            const Acc* weight_row, const Acc* weight_col, T* out, int64_t first, int64_t last,
                            Acc* scratch) {
  const Plan plan(shape);
  const int64_t picture_values = plan.channels * plan.height * plan.width;
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t strip = piece % plan.strips, block = piece / plan.strips % plan.blocks;
    const int64_t picture = piece / plan.strips / plan.blocks;
    const int64_t weights = kPlanar ? picture % shape.channels * K : 0;
    const int64_t at = picture * picture_values;
    run_piece<K, kPlanar>(plan, attn + at, value + at, weight_row + weights, weight_col + weights, out + at,
                          block, strip, scratch);
  }
}

template <typename T, typename Acc>
AICR_INLINE void run_any(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                         const Acc* weight_row, const Acc* weight_col, T* out, int64_t first, int64_t last,
                         Acc* scratch) {
#define AICR_RUN(K, kPlanar) \
  run_pieces<K, kPlanar>(shape, attn, value, weight_row, weight_col, out, first, last, scratch)
  if (shape.channels_last) {
    if (shape.taps == 3) AICR_RUN(3, false);
    if (shape.taps == 5) AICR_RUN(5, false);
    if (shape.taps == 7) AICR_RUN(7, false);
  } else {
    if (shape.taps == 3) AICR_RUN(3, true);
    if (shape.taps == 5) AICR_RUN(5, true);
    if (shape.taps == 7) AICR_RUN(7, true);
  }
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
  return Plan(shape).pieces();
}

template <typename T, typename Acc>
void decoupled_attention_run(const DecoupledAttentionShape& shape, const T* attn, const T* value,
                             const Acc* weight_row, const Acc* weight_col, T* out, int64_t first,
                             int64_t last) {
  const Plan plan(shape);
  const int64_t K = shape.taps, C = plan.channels;
  std::vector<Acc> scratch((plan.strip + K - 1) * C + K * plan.strip * C);
  std::vector<Acc> row(weight_row, weight_row + shape.channels * K),
      col(weight_col, weight_col + shape.channels * K);
  if (shape.channels_last) {
    row = tiled_weights(weight_row, K, C);
    col = tiled_weights(weight_col, K, C);
  }
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
