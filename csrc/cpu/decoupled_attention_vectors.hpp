// decoupled_attention of channels-last maps, for 32 registers of 64 bytes: the channels of a line fall into
// pairs of vectors, whose weights stay in registers. Working memory has the values of a pair beside one
// another, pixel by pixel, so that no vector lies across two lines of the cache. While the row convolution
// computes, what the steps after it read comes from memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/decoupled_attention_pieces.hpp"
#include "cpu/gelu.hpp"
#include "cpu/vectors.hpp"

namespace aicr {

// K: taps. T: float or BFloat16.
template <int kBytes, int K, typename T>
struct AttentionVectors {
  using Values = Pair<kBytes>;
  using Int = typename Vectors<kBytes>::Int;
  static constexpr int64_t kValues = Values::kValues, R = K / 2;
  static constexpr int64_t kPairWeights = K * kValues;
  static constexpr int64_t kTilePixels = 16;

  // Pairs that the channels fall into. The last begins so early that it is full.
  static constexpr int64_t pairs(int64_t channels) { return divide_up(channels, kValues); }
  static int64_t begin(int64_t pair, int64_t channels) {
    return std::min(pair * kValues, channels - kValues);
  }

  // Values that the working memory of a piece has: the last K lines, and a line with R more columns on each
  // side.
  static int64_t memory_values(const PiecePlan& plan) {
    return pairs(plan.channels) * (K * plan.strip + plan.strip + K - 1) * kValues;
  }

  // weight [channels][K] as [pairs][K][kValues]
  static void arrange(const float* weight, int64_t channels, float* to) {
    for (int64_t n = 0; n < pairs(channels); ++n) {
      for (int64_t k = 0; k < K; ++k, to += kValues) {
        const float* from = weight + begin(n, channels) * K + k;
        for (int64_t i = 0; i < kValues; ++i)
          to[Values::place(static_cast<const T*>(nullptr), i)] = from[i * K];
      }
    }
  }

  // sums = the sum over k of weight[k] * lines[k], at one pixel
  static AICR_INLINE void convolve(const Values* weight, const float* const* lines, int64_t at,
                                   Values& sums) {
    Values value = aligned(lines[0] + at);
    sums.first = weight[0].first * value.first;
    sums.second = weight[0].second * value.second;
#pragma GCC unroll 7
    for (int k = 1; k < K; ++k) {
      value = aligned(lines[k] + at);
      sums.first += weight[k].first * value.first;
      sums.second += weight[k].second * value.second;
    }
  }

  // What will be read, and written.
  struct Next {
    const T *attn, *value, *out;
  };

  // to = GELU(x); pixels of x lie `step` values apart.
  static AICR_INLINE void gelu_line(const T* __restrict__ x, int64_t step, int64_t pixels,
                                    float* __restrict__ to) {
    Values values;
    for (int64_t i = 0; i < pixels; ++i) {
      values.load(x + i * step);
      put_gelu(values, to + i * kValues);
    }
  }

  // to[i] = GELU(sum over k of weight[k] * from[i + k]), by pixels. Meanwhile as many values at each of
  // `next` go towards the cache.
  static AICR_INLINE void convolve_row(const float* __restrict__ from, const float* weight, int64_t pixels,
                                       const Next& next, float* __restrict__ to) {
    Values weights[K], sums;
    const float* lines[K];
    for (int k = 0; k < K; ++k) {
      weights[k] = aligned(weight + k * kValues);
      lines[k] = from + k * kValues;
    }
    for (int64_t i = 0; i < pixels; ++i) {
      for (int64_t j = 0; j < kValues; j += kBytes / static_cast<int64_t>(sizeof(T))) {
        __builtin_prefetch(next.attn + i * kValues + j, 0, 2);
        __builtin_prefetch(next.value + i * kValues + j, 0, 2);
        __builtin_prefetch(next.out + i * kValues + j, 1, 2);
      }
      convolve(weights, lines, i * kValues, sums);
      put_gelu(sums, to + i * kValues);
    }
  }

  // out = value * sum over k of weight[k] * lines[k][at], by pixels; those of value and out lie `step` values
  // apart.
  static AICR_INLINE void convolve_column(const float* const* lines, int64_t at, const float* weight,
                                          const T* __restrict__ value, int64_t step, int64_t pixels,
                                          T* __restrict__ out) {
    Values weights[K], sums, factors;
    for (int k = 0; k < K; ++k) weights[k] = aligned(weight + k * kValues);
    for (int64_t i = 0; i < pixels; ++i) {
      convolve(weights, lines, at + i * kValues, sums);
      factors.load(value + i * step);
      sums.first *= factors.first;
      sums.second *= factors.second;
      sums.store(out + i * step);
    }
  }

  // attn, value, out: of the piece's picture. Weights are arranged, and memory is aligned.
  static AICR_INLINE void run_piece(const PiecePlan& plan, const Piece& piece, const T* attn, const T* value,
                                    const float* weight_row, const float* weight_col, T* out, float* memory) {
    const int64_t C = plan.channels, W = plan.width, H = plan.height, count = pairs(C);
    const int64_t left = piece.left, columns = piece.columns, row_values = columns * kValues;
    const int64_t line_values = (columns + K - 1) * kValues;
    const auto [first, last] = columns_around(piece, R, W);
    float* ring = memory;                           // [K rows][pairs]; row h lies in place h mod K
    float* line = memory + K * count * row_values;  // [pairs]; outside the picture it stays zero
    std::fill(line, line + count * line_values, 0.0f);

    for (int64_t h = piece.top - R; h < piece.bottom + R; ++h) {
      const int64_t centre = h - R;
      float* row = ring + (h + K) % K * count * row_values;
      if (h < 0 || h >= H) {
        std::fill(row, row + count * row_values, 0.0f);
      } else {
        for_tiles(first, last, C, [&](int64_t w, int64_t pixels, int64_t n) AICR_INLINE_LAMBDA {
          gelu_line(attn + (h * W + w) * C + begin(n, C), C, pixels,
                    line + n * line_values + (w - left + R) * kValues);
        });
        const int64_t coming = (std::min(h + 1, H - 1) * W + left) * C;
        const int64_t central = (std::max(centre, piece.top) * W + left) * C;
        for (int64_t n = 0; n < count; ++n) {
          const int64_t part = n * row_values;
          convolve_row(line + n * line_values, weight_row + n * kPairWeights, columns,
                       {attn + coming + part, value + central + part, out + central + part}, row + part);
        }
      }
      if (centre < piece.top) continue;
      for_tiles(0, columns, C, [&](int64_t w, int64_t pixels, int64_t n) AICR_INLINE_LAMBDA {
        const float* rows[K];
        for (int64_t k = 0; k < K; ++k) rows[k] = ring + ((centre - R + k + K) % K * count + n) * row_values;
        const int64_t at = (centre * W + left + w) * C + begin(n, C);
        convolve_column(rows, w * kValues, weight_col + n * kPairWeights, value + at, C, pixels, out + at);
      });
    }
  }

 private:
  // Calls each(w, pixels, pair) for all columns from first to last and all pairs, in an order in which the
  // maps are read and written almost as they lie in memory.
  template <typename Each>
  static AICR_INLINE void for_tiles(int64_t first, int64_t last, int64_t channels, const Each& each) {
    for (int64_t w = first; w < last; w += kTilePixels) {
      for (int64_t n = 0; n < pairs(channels); ++n) each(w, std::min(kTilePixels, last - w), n);
    }
  }

  static AICR_INLINE Values aligned(const float* at) {
    using Float = typename Vectors<kBytes>::Float;
    return {*reinterpret_cast<const Float*>(at),
            *reinterpret_cast<const Float*>(at + Vectors<kBytes>::kLanes)};
  }

  static AICR_INLINE void put_gelu(Values& values, float* to) {
    values.first *= normal_cdf_of<Int>(values.first);
    values.second *= normal_cdf_of<Int>(values.second);
    values.store(to);
  }
};

}  // namespace aicr
