// What the loops of depthwise_conv3x3, of gated_depthwise_conv3x3 and of its derivative have in common. No
// torch here.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/gated_depthwise_conv3x3_kernel.hpp"
#include "cpu/pieces.hpp"
#include "cpu/vector32.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {

// A piece of planes has two lines where one of channels-last pixels has one, if there is a gate: its own and
// that of the value.
constexpr int64_t lines_of(bool planar) {
  return planar ? 2 : 1;
}

// How the work is cut: planes by those of the result.
inline PiecePlan gated_depthwise_plan(const GatedDepthwiseShape& shape, int64_t strip_values) {
  MapShape map = shape.map;
  if (!map.channels_last) map.channels = shape.out_channels();
  return {map, strip_values};
}

// Where in x a piece's picture, or the plane of its gate, begins; that of its value is half the channels on.
inline int64_t first_plane(const GatedDepthwiseShape& shape, int64_t picture) {
  const int64_t out_channels = shape.out_channels();
  return shape.map.channels_last ? picture * shape.map.channels
                                 : picture / out_channels * shape.map.channels + picture % out_channels;
}

// How far apart pixels lie in lines of working memory. Multiples of a power of two would send them to few
// places of the first cache, and make processors take loads for ones of what was just stored.
constexpr int64_t pixel_step(int64_t channels) {
  return channels % 64 == 0 ? channels + 16 : channels;
}

// A line of a piece with `reach` columns on each side, in the accumulation type; `inside` of them are in the
// picture, the others remain what they are.
template <typename T, typename Acc>
AICR_INLINE void load_line(const T* __restrict__ x, const Piece& piece, const ColumnRange& inside,
                           int64_t reach, int64_t channels, Acc* __restrict__ line) {
  const int64_t step = pixel_step(channels), skip = inside.begin - piece.left + reach;
  const int64_t run = step == channels ? (inside.end - inside.begin) * channels : channels;
  const int64_t runs = step == channels ? 1 : inside.end - inside.begin;
  for (int64_t n = 0; n < runs; ++n) {
    Acc* __restrict__ to = line + (skip + n) * step;
    const T* __restrict__ from = x + (inside.begin + n) * channels;
    for (int64_t i = 0; i < run; ++i) to[i] = static_cast<Acc>(from[i]);
  }
}

// sums = the convolution at P neighbouring pixels, the channels from i on: as many as a V holds. rows: three
// lines from the column before the first pixel.
template <int P, typename V, typename Acc>
AICR_INLINE void convolve_channels(const Acc* const* rows, const Acc* terms, int64_t channels, int64_t i,
                                   Acc* sums) {
  const int64_t step = pixel_step(channels);
  V sum[P];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) sum[p] = *reinterpret_cast<const V*>(terms + kDepthwiseTaps * channels + i);
#pragma GCC unroll 3
  for (int dy = 0; dy < 3; ++dy) {
    const Acc* weights = terms + 3 * dy * channels + i;
    const V first = *reinterpret_cast<const V*>(weights),
            second = *reinterpret_cast<const V*>(weights + channels),
            third = *reinterpret_cast<const V*>(weights + 2 * channels);
#pragma GCC unroll 10
    for (int q = 0; q < P + 2; ++q) {
      const V value = *reinterpret_cast<const V*>(rows[dy] + q * step + i);
      if (q >= 2) sum[q - 2] += third * value;
      if (q >= 1 && q <= P) sum[q - 1] += second * value;
      if (q < P) sum[q] += first * value;
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) *reinterpret_cast<V*>(sums + p * step + i) = sum[p];
}

// The same, all channels. The last vector may do some of them a second time.
template <int P, typename Acc>
AICR_INLINE void convolve_pixels(const Acc* const* rows, const Acc* terms, int64_t channels, Acc* sums) {
  constexpr int64_t kValues = Vector32<Acc>::kValues;
  if (channels < kValues) {
    for (int64_t i = 0; i < channels; ++i) convolve_channels<P, Acc>(rows, terms, channels, i, sums);
    return;
  }
  for (int64_t i = 0; i < channels; i += kValues) {
    convolve_channels<P, typename Vector32<Acc>::type>(rows, terms, channels, std::min(i, channels - kValues),
                                                       sums);
  }
}

// Pixels whose channels are convolved at a time.
constexpr int kPixels = 8;

// Calls each(w, sums) with the convolution at every one of `columns` pixels. rows: three lines from the
// column before the first. sums: memory for kPixels pixels.
template <typename Acc, typename Each>
AICR_INLINE void convolve_channels_last(const Acc* const* rows, const Acc* terms, int64_t columns,
                                        int64_t channels, Acc* sums, const Each& each) {
  const int64_t step = pixel_step(channels);
  for (int64_t w = 0; w < columns;) {
    const Acc* at[3] = {rows[0] + w * step, rows[1] + w * step, rows[2] + w * step};
    const int64_t count = w + kPixels <= columns ? kPixels : 1;
    if (count == kPixels) {
      convolve_pixels<kPixels>(at, terms, channels, sums);
    } else {
      convolve_pixels<1>(at, terms, channels, sums);
    }
    for (int64_t p = 0; p < count; ++p) each(w + p, sums + p * step);
    w += count;
  }
}

// sums = the convolution of a line of a plane.
template <typename Acc>
AICR_INLINE void convolve_plane(const Acc* const* rows, const Acc* __restrict__ terms, int64_t columns,
                                Acc* __restrict__ sums) {
  const Acc* __restrict__ above = rows[0], * __restrict__ row = rows[1], * __restrict__ below = rows[2];
  for (int64_t i = 0; i < columns; ++i) {
    Acc sum = terms[kDepthwiseTaps];
    for (int k = 0; k < 3; ++k) sum += terms[k] * above[i + k];
    for (int k = 0; k < 3; ++k) sum += terms[3 + k] * row[i + k];
    for (int k = 0; k < 3; ++k) sum += terms[6 + k] * below[i + k];
    sums[i] = sum;
  }
}

}  // namespace aicr

// RUN(planar, gelu) with the two as constants, where there is a gate; see AICR_FOR_GATE.
#define AICR_FOR_LAYOUT_AND_GATE(shape, RUN)                     \
  if ((shape).map.channels_last) {                               \
    if ((shape).gate == DepthwiseGate::kGelu) RUN(false, true);  \
    if ((shape).gate != DepthwiseGate::kGelu) RUN(false, false); \
  } else {                                                       \
    if ((shape).gate == DepthwiseGate::kGelu) RUN(true, true);   \
    if ((shape).gate != DepthwiseGate::kGelu) RUN(true, false);  \
  }
