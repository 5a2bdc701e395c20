// gated_depthwise_conv3x3 of channels-last maps, for 32 registers of 64 bytes: the sums of eight neighbouring
// pixels by 32 channels stay in registers. Rows are read where they lie, bfloat16 as such; only what is
// around pixels at the edge of the picture is copied, with zeros.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/gated_depthwise_conv3x3_loops.hpp"
#include "cpu/gelu.hpp"
#include "cpu/vectors.hpp"

namespace aicr {

// T: float or BFloat16.
template <int kBytes, typename T>
struct DepthwiseVectors {
  using Values = Pair<kBytes>;
  using Int = typename Vectors<kBytes>::Int;
  using Float = typename Vectors<kBytes>::Float;
  static constexpr int64_t kValues = Values::kValues;
  static constexpr int kPixels = 8, kAround = kPixels + 2;
  // So many groups of pixels use the terms of a pair while they are in the first cache.
  static constexpr int64_t kGroups = 2;
  static constexpr int64_t kPairTerms = 2 * kDepthwiseTerms * kValues;

  // Whether this is the faster way. Of narrow maps, most groups of pixels lie at an edge; vectors of floats
  // that lie across two lines of the cache cost more than the copies of rows that the other way makes.
  static bool suits(const GatedDepthwiseShape& shape) {
    const int64_t bytes = shape.out_channels() * static_cast<int64_t>(sizeof(T));
    return kBytes == 64 && shape.map.channels_last && shape.out_channels() >= kValues &&
           shape.map.width >= 3 * kPixels && (sizeof(T) < sizeof(float) || bytes % kBytes == 0);
  }

  // Pairs of vectors that the channels of the result fall into. The last begins so early that it is full.
  static constexpr int64_t pairs(int64_t out_channels) { return divide_up(out_channels, kValues); }
  static int64_t begin(int64_t pair, int64_t out_channels) {
    return std::min(pair * kValues, out_channels - kValues);
  }

  // terms [10][channels] as [pairs][2][10][kValues]
  static void arrange(const float* terms, int64_t out_channels, float* to) {
    for (int64_t n = 0; n < pairs(out_channels); ++n) {
      for (int64_t half = 0; half < 2; ++half) {
        for (int64_t t = 0; t < kDepthwiseTerms; ++t, to += kValues) {
          const float* from = terms + (2 * t + half) * out_channels + begin(n, out_channels);
          for (int64_t i = 0; i < kValues; ++i)
            to[Values::place(static_cast<const T*>(nullptr), i)] = from[i];
        }
      }
    }
  }

  // sums [kPixels][kValues] = the convolution at neighbouring pixels. rows: three lines of pixels `step`
  // values apart, from the column before the first.
  static AICR_INLINE void convolve(const T* const* rows, int64_t step, const float* terms, float* sums) {
    Values bias, value;
    bias.load(terms + kDepthwiseTaps * kValues);
    Float first[kPixels], second[kPixels];
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      first[p] = bias.first;
      second[p] = bias.second;
    }
    for (int dy = 0; dy < 3; ++dy) {
      const T* row = rows[dy];
      Values left, centre, right;
      left.load(terms + 3 * dy * kValues);
      centre.load(terms + (3 * dy + 1) * kValues);
      right.load(terms + (3 * dy + 2) * kValues);
#pragma GCC unroll 10
      for (int q = 0; q < kAround; ++q) {
        value.load(row + q * step);
        if (q >= 2) {
          first[q - 2] += right.first * value.first;
          second[q - 2] += right.second * value.second;
        }
        if (q >= 1 && q <= kPixels) {
          first[q - 1] += centre.first * value.first;
          second[q - 1] += centre.second * value.second;
        }
        if (q < kPixels) {
          first[q] += left.first * value.first;
          second[q] += left.second * value.second;
        }
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) Values{first[p], second[p]}.store(sums + p * kValues);
  }

  // A pair of channels of `count` neighbouring pixels of the result. gates, values: as the rows of
  // convolve().
  template <bool kGelu>
  static AICR_INLINE void gate_pixels(const T* const* gates, const T* const* values, int64_t step,
                                      const float* terms, int64_t out_channels, T* out, int64_t count) {
    float sums[kPixels * kValues], factors[kPixels * kValues];
    convolve(gates, step, terms, sums);
    convolve(values, step, terms + kDepthwiseTerms * kValues, factors);
    for (int64_t p = 0; p < count; ++p) {
      Values gate, value;
      gate.load(sums + p * kValues);
      value.load(factors + p * kValues);
      if (kGelu) {
        gate.first *= normal_cdf_of<Int>(gate.first);
        gate.second *= normal_cdf_of<Int>(gate.second);
      }
      gate.first *= value.first;
      gate.second *= value.second;
      gate.store(out + p * out_channels);
    }
  }

  // The pixels around those from column left + 1 of row h on, with zeros outside the picture. x: the pair's
  // first value of the picture.
  static AICR_INLINE void copy_around(const T* x, const PiecePlan& plan, int64_t h, int64_t left, T* copy,
                                      const T** rows) {
    for (int64_t dy = 0; dy < 3; ++dy) {
      rows[dy] = copy + dy * kAround * kValues;
      for (int64_t q = 0; q < kAround; ++q) {
        const int64_t row = h + dy - 1, column = left + q;
        T* to = copy + (dy * kAround + q) * kValues;
        if (row < 0 || row >= plan.height || column < 0 || column >= plan.width) {
          std::memset(static_cast<void*>(to), 0, kValues * sizeof(T));
        } else {
          std::memcpy(to, x + (row * plan.width + column) * plan.channels, kValues * sizeof(T));
        }
      }
    }
  }

  // Part `index` of `parts` of a row of the piece goes towards the cache, in the order in which it lies in
  // memory: the loads of convolve() are too far apart for the processor to foresee them.
  static AICR_INLINE void fetch(const T* x, const PiecePlan& plan, const Piece& piece, int64_t row,
                                int64_t index, int64_t parts) {
    if (row >= plan.height) return;
    const int64_t bytes = piece.columns * plan.channels * static_cast<int64_t>(sizeof(T));
    const int64_t part = divide_up(bytes, parts), end = std::min((index + 1) * part, bytes);
    const char* from = reinterpret_cast<const char*>(x + (row * plan.width + piece.left) * plan.channels);
    for (int64_t at = index * part; at < end; at += 64) __builtin_prefetch(from + at, 0, 2);
  }

  // x, out: of the piece's picture. terms: arranged.
  template <bool kGelu>
  static AICR_INLINE void run_piece(const PiecePlan& plan, const Piece& piece, const T* x, const float* terms,
                                    T* out) {
    const int64_t C = plan.channels, W = plan.width, H = plan.height, out_channels = C / 2;
    const int64_t groups = divide_up(piece.columns, kPixels), parts = groups * pairs(out_channels);
    for (int64_t h = piece.top; h < piece.bottom; ++h) {
      int64_t part = 0;
      for (int64_t first = 0; first < groups; first += kGroups) {
        const int64_t last = std::min(first + kGroups, groups);
        for (int64_t n = 0; n < pairs(out_channels); ++n) {
          const int64_t at = begin(n, out_channels);
          for (int64_t group = first; group < last; ++group) {
            const int64_t w = group * kPixels, left = piece.left + w - 1;
            if (h + 1 < piece.bottom) fetch(x, plan, piece, h + 2, part++, parts);
            const T *gates[3], *values[3];
            T copies[2][3 * kAround * kValues];
            int64_t step = C;
            if (h > 0 && h + 1 < H && left >= 0 && left + kAround <= W) {
              for (int64_t dy = 0; dy < 3; ++dy) {
                gates[dy] = x + ((h + dy - 1) * W + left) * C + at;
                values[dy] = gates[dy] + out_channels;
              }
            } else {
              copy_around(x + at, plan, h, left, copies[0], gates);
              copy_around(x + at + out_channels, plan, h, left, copies[1], values);
              step = kValues;
            }
            gate_pixels<kGelu>(gates, values, step, terms + n * kPairTerms, out_channels,
                               out + (h * W + piece.left + w) * out_channels + at,
                               std::min<int64_t>(kPixels, piece.columns - w));
          }
        }
      }
    }
  }
};

}  // namespace aicr
