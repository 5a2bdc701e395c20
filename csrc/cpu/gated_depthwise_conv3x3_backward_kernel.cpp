// The derivatives of gated_depthwise_conv3x3 in one pass. With the halves a and b of c = dwconv_{3x3}(x) and
// the result f(a) * b,
//
//   d = (grad * b * f'(a), grad * f(a))
//   grad_x = dwconv_{3x3}(d) with the taps flipped    grad_weight[tap] = sum of d * x at the tap
//
// A piece is what it is in the forward pass. Its rows of x go into a ring of three lines with two columns
// more on each side, from which c is computed again, the rows of d into another with one column more; once
// that holds the rows around an output row, its gradients follow. The sums over pixels are added up per
// piece, and by the caller in the order of the pieces.
#include "cpu/gated_depthwise_conv3x3_backward_kernel.hpp"

#include <algorithm>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/gated_depthwise_conv3x3_loops.hpp"
#include "cpu/gelu.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kStripValues = 4096;  // of one line: 8 lines of float take 128 KiB

// The working memory of a piece; of planes there are two of each, one after the other.
template <typename Acc>
struct Lines {
  int64_t wide, middle, terms;  // values of a line of x and of d, and of the sums
  Acc *x, *d;                   // rings of three
  Acc *sums, *out;              // of the terms' gradients; a line, or some pixels, of c or of grad_x

  static int64_t values(int64_t lines, int64_t columns, int64_t channels) {
    const int64_t out = std::max<int64_t>(columns + 2, kPixels);
    return lines * (3 * (columns + 4) + 3 * (columns + 2) + kDepthwiseTerms + out) * pixel_step(channels);
  }

  Lines(int64_t lines, int64_t columns, int64_t channels, Acc* memory)
      : wide((columns + 4) * pixel_step(channels)),
        middle((columns + 2) * pixel_step(channels)),
        terms(kDepthwiseTerms * channels),
        x(memory),
        d(x + 3 * lines * wide),
        sums(d + 3 * lines * middle),
        out(sums + lines * terms) {
    std::fill(memory, memory + values(lines, columns, channels), Acc(0));
  }

  Acc* x_row(int64_t half, int64_t h) const { return x + (3 * half + (h + 3) % 3) * wide; }
  Acc* d_row(int64_t half, int64_t h) const { return d + (3 * half + (h + 3) % 3) * middle; }
};

template <typename T, typename Acc>
AICR_INLINE void store(const Acc* __restrict__ from, T* __restrict__ to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(from[i]);
}

// d of both halves, `count` values of each.
template <bool kGelu, typename T, typename Acc>
AICR_INLINE void gate_slopes(const T* __restrict__ grad, const Acc* __restrict__ a, const Acc* __restrict__ b,
                             Acc* __restrict__ d_a, Acc* __restrict__ d_b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const Acc up = static_cast<Acc>(grad[i]), gate = a[i];
    d_a[i] = up * b[i] * (kGelu ? gelu_slope(gate) : Acc(1));
    d_b[i] = up * (kGelu ? gelu(gate) : gate);
  }
}

// sums += d * x at all taps, of P neighbouring pixels, the channels from i on. x_rows: three lines from the
// column before the first pixel.
template <int P, typename V, typename Acc>
AICR_INLINE void add_channel_products(const Acc* d, const Acc* const* x_rows, int64_t channels, int64_t i,
                                      Acc* sums) {
  const int64_t step = pixel_step(channels);
  V up[P];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) up[p] = *reinterpret_cast<const V*>(d + p * step + i);
#pragma GCC unroll 3
  for (int dy = 0; dy < 3; ++dy) {
    Acc* at = sums + 3 * dy * channels + i;
    V first = *reinterpret_cast<V*>(at), second = *reinterpret_cast<V*>(at + channels),
      third = *reinterpret_cast<V*>(at + 2 * channels);
#pragma GCC unroll 10
    for (int q = 0; q < P + 2; ++q) {
      const V value = *reinterpret_cast<const V*>(x_rows[dy] + q * step + i);
      if (q < P) first += up[q] * value;
      if (q >= 1 && q <= P) second += up[q - 1] * value;
      if (q >= 2) third += up[q - 2] * value;
    }
    *reinterpret_cast<V*>(at) = first;
    *reinterpret_cast<V*>(at + channels) = second;
    *reinterpret_cast<V*>(at + 2 * channels) = third;
  }
  V bias = *reinterpret_cast<V*>(sums + kDepthwiseTaps * channels + i);
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) bias += up[p];
  *reinterpret_cast<V*>(sums + kDepthwiseTaps * channels + i) = bias;
}

template <int P, typename Acc>
AICR_INLINE void add_pixel_products(const Acc* d, const Acc* const* x_rows, int64_t channels, Acc* sums) {
  constexpr int64_t kValues = Vector32<Acc>::kValues;
  int64_t i = 0;
  for (; i + kValues <= channels; i += kValues) {
    add_channel_products<P, typename Vector32<Acc>::type>(d, x_rows, channels, i, sums);
  }
  for (; i < channels; ++i) add_channel_products<P, Acc>(d, x_rows, channels, i, sums);
}

// The same of a line of a plane: every sum is one number.
template <typename Acc>
AICR_INLINE void add_plane_products(const Acc* d, const Acc* const* x_rows, int64_t columns, Acc* sums) {
  using V = typename Vector32<Acc>::type;
  constexpr int64_t kValues = Vector32<Acc>::kValues;
  V part[kDepthwiseTerms] = {};
  int64_t i = 0;
  for (; i + kValues <= columns; i += kValues) {
    const V up = *reinterpret_cast<const V*>(d + i);
#pragma GCC unroll 9
    for (int tap = 0; tap < kDepthwiseTaps; ++tap) {
      part[tap] += up * *reinterpret_cast<const V*>(x_rows[tap / 3] + i + tap % 3);
    }
    part[kDepthwiseTaps] += up;
  }
  for (int term = 0; term < kDepthwiseTerms; ++term) {
    for (int64_t k = 0; k < kValues; ++k) sums[term] += part[term][k];
  }
  for (; i < columns; ++i) {
    for (int tap = 0; tap < kDepthwiseTaps; ++tap) sums[tap] += d[i] * x_rows[tap / 3][i + tap % 3];
    sums[kDepthwiseTaps] += d[i];
  }
}

template <bool kPlanar, typename Acc>
AICR_INLINE void add_products(const Acc* d, const Acc* const* x_rows, int64_t columns, int64_t channels,
                              Acc* sums) {
  if (kPlanar) {
    add_plane_products(d, x_rows, columns, sums);
    return;
  }
  const int64_t step = pixel_step(channels);
  for (int64_t w = 0; w < columns;) {
    const Acc* at[3] = {x_rows[0] + w * step, x_rows[1] + w * step, x_rows[2] + w * step};
    if (w + kPixels <= columns) {
      add_pixel_products<kPixels>(d + w * step, at, channels, sums);
      w += kPixels;
    } else {
      add_pixel_products<1>(d + w * step, at, channels, sums);
      ++w;
    }
  }
}

template <bool kPlanar, bool kGelu, typename T, typename Acc>
AICR_INLINE void run_piece(const GatedDepthwiseShape& shape, const PiecePlan& plan, const Piece& piece,
                           const T* grad, const T* x, const Acc* terms, const Acc* flipped, T* grad_x,
                           Acc* part, Acc* memory) {
  constexpr int64_t kLines = lines_of(kPlanar);
  const int64_t C = plan.channels, W = plan.width, H = plan.height, step = pixel_step(C);
  const int64_t left = piece.left, columns = piece.columns, top = piece.top, bottom = piece.bottom;
  const int64_t second = shape.out_channels();  // plane: that of the value
  const int64_t of_pixel = C / 2;               // channels-last: values of the result
  const Lines<Acc> lines(kLines, columns, C, memory);
  const ColumnRange wide = columns_around(piece, 2, W), inside = columns_around(piece, 1, W);
  const int64_t skip = inside.begin - left + 1, width = inside.end - inside.begin;

  // h is the row of x that comes in, h - 1 that of d, and h - 2 that of grad_x.
  for (int64_t h = top - 2; h < bottom + 2; ++h) {
    for (int64_t half = 0; half < kLines; ++half) {
      Acc* to = lines.x_row(half, h);
      if (h < 0 || h >= H) {
        std::fill(to, to + lines.wide, Acc(0));
      } else {
        load_line(x + (half * second * H + h) * W * C, piece, wide, 2, C, to);
      }
    }

    const int64_t row = h - 1;
    if (row < top - 1) continue;
    const Acc* x_rows[kLines][3];  // from the column left of the first one in d
    for (int64_t half = 0; half < kLines; ++half) {
      for (int64_t dy = 0; dy < 3; ++dy) x_rows[half][dy] = lines.x_row(half, row - 1 + dy);
    }
    if (row < 0 || row >= H) {
      for (int64_t half = 0; half < kLines; ++half) {
        std::fill(lines.d_row(half, row), lines.d_row(half, row) + lines.middle, Acc(0));
      }
    } else if (kPlanar) {
      for (int64_t half = 0; half < kLines; ++half) {
        const Acc* at[3] = {x_rows[half][0] + skip, x_rows[half][1] + skip, x_rows[half][2] + skip};
        convolve_plane(at, terms + half * second * kDepthwiseTerms, width, lines.out + half * width);
      }
      gate_slopes<kGelu>(grad + row * W + inside.begin, lines.out, lines.out + width,
                         lines.d_row(0, row) + skip, lines.d_row(kLines - 1, row) + skip, width);
    } else {
      const T* up = grad + (row * W + inside.begin) * of_pixel;
      Acc* d = lines.d_row(0, row) + skip * step;
      const Acc* at[3];
      for (int64_t dy = 0; dy < 3; ++dy) at[dy] = x_rows[0][dy] + skip * step;
      convolve_channels_last(at, terms, width, C, lines.out, [&](int64_t w, const Acc* c) AICR_INLINE_LAMBDA {
        gate_slopes<kGelu>(up + w * of_pixel, c, c + of_pixel, d + w * step, d + w * step + of_pixel,
                           of_pixel);
      });
    }
    if (row >= top && row < bottom) {
      for (int64_t half = 0; half < kLines; ++half) {
        const Acc* at[3];
        for (int64_t dy = 0; dy < 3; ++dy) at[dy] = x_rows[half][dy] + step;
        add_products<kPlanar>(lines.d_row(half, row) + step, at, columns, C, lines.sums + half * lines.terms);
      }
    }

    const int64_t centre = h - 2;
    if (centre < top) continue;
    for (int64_t half = 0; half < kLines; ++half) {
      const Acc* d_rows[3];
      for (int64_t dy = 0; dy < 3; ++dy) d_rows[dy] = lines.d_row(half, centre - 1 + dy);
      T* to = grad_x + ((half * second * H + centre) * W + left) * C;
      if (kPlanar) {
        convolve_plane(d_rows, flipped + half * second * kDepthwiseTerms, columns, lines.out);
        store(lines.out, to, columns);
      } else {
        convolve_channels_last(d_rows, flipped, columns, C, lines.out,
                               [&](int64_t w, const Acc* sums)
                                   AICR_INLINE_LAMBDA { store(sums, to + w * C, C); });
      }
    }
  }

  for (int64_t t = 0; t < kDepthwiseTerms; ++t) {
    for (int64_t half = 0; half < kLines; ++half) {
      for (int64_t c = 0; c < C; ++c) {
        part[(t * kLines + half) * C + c] = lines.sums[half * lines.terms + t * C + c];
      }
    }
  }
}

template <bool kPlanar, bool kGelu, typename T, typename Acc>
AICR_INLINE void run_pieces(const GatedDepthwiseShape& shape, const T* grad, const T* x, const Acc* terms,
                            const Acc* flipped, T* grad_x, Acc* parts, int64_t first, int64_t last,
                            Acc* memory) {
  const PiecePlan plan = gated_depthwise_plan(shape, kStripValues);
  const int64_t pixels = plan.height * plan.width,
                part = kDepthwiseTerms * gated_depthwise_backward_channels(shape);
  for (int64_t i = first; i < last; ++i) {
    const Piece piece = plan.piece(i);
    const int64_t out_plane = kPlanar ? piece.picture : piece.picture * shape.out_channels();
    const int64_t channel = kPlanar ? piece.picture % shape.out_channels() : 0;
    const int64_t at = first_plane(shape, piece.picture) * pixels;
    run_piece<kPlanar, kGelu>(shape, plan, piece, grad + out_plane * pixels, x + at,
                              terms + channel * kDepthwiseTerms, flipped + channel * kDepthwiseTerms,
                              grad_x + at, parts + i * part, memory);
  }
}

template <typename T, typename Acc>
AICR_INLINE void run_any(const GatedDepthwiseShape& shape, const T* grad, const T* x, const Acc* terms,
                         const Acc* flipped, T* grad_x, Acc* parts, int64_t first, int64_t last,
                         Acc* memory) {
#define AICR_RUN(kPlanar, kGelu) \
  run_pieces<kPlanar, kGelu>(shape, grad, x, terms, flipped, grad_x, parts, first, last, memory)
  AICR_FOR_LAYOUT_AND_GATE(shape, AICR_RUN);
#undef AICR_RUN
}

// target_clones does not go with templates, so the types are spelled out.
#define AICR_DEFINE_CLONES(T, Acc)                                                                \
  AICR_VECTOR_CLONES void run_clones(const GatedDepthwiseShape& shape, const T* grad, const T* x, \
                                     const Acc* terms, const Acc* flipped, T* grad_x, Acc* parts, \
                                     int64_t first, int64_t last, Acc* memory) {                  \
    run_any(shape, grad, x, terms, flipped, grad_x, parts, first, last, memory);                  \
  }
AICR_DEFINE_CLONES(float, float)
AICR_DEFINE_CLONES(BFloat16, float)
AICR_DEFINE_CLONES(Half, float)
#undef AICR_DEFINE_CLONES

void run_clones(const GatedDepthwiseShape& shape, const double* grad, const double* x, const double* terms,
                const double* flipped, double* grad_x, double* parts, int64_t first, int64_t last,
                double* memory) {
  run_any(shape, grad, x, terms, flipped, grad_x, parts, first, last, memory);
}

}  // namespace

int64_t gated_depthwise_backward_pieces(const GatedDepthwiseShape& shape) {
  return gated_depthwise_plan(shape, kStripValues).pieces();
}

int64_t gated_depthwise_backward_channels(const GatedDepthwiseShape& shape) {
  return shape.map.channels_last ? shape.map.channels : lines_of(true);
}

int64_t gated_depthwise_backward_channel(const GatedDepthwiseShape& shape, int64_t piece, int64_t n) {
  if (shape.map.channels_last) return n;
  const int64_t plane = gated_depthwise_plan(shape, kStripValues).piece(piece).picture % shape.out_channels();
  return plane + n * shape.out_channels();
}

template <typename T, typename Acc>
void gated_depthwise_backward_run(const GatedDepthwiseShape& shape, const T* grad, const T* x,
                                  const Acc* terms, const Acc* flipped, T* grad_x, Acc* parts, int64_t first,
                                  int64_t last) {
  const PiecePlan plan = gated_depthwise_plan(shape, kStripValues);
  std::vector<Acc> memory(Lines<Acc>::values(lines_of(!shape.map.channels_last), plan.strip, plan.channels));
  run_clones(shape, grad, x, terms, flipped, grad_x, parts, first, last, memory.data());
}

#define AICR_INSTANTIATE(T, Acc)                                                                     \
  template void gated_depthwise_backward_run<T, Acc>(const GatedDepthwiseShape&, const T*, const T*, \
                                                     const Acc*, const Acc*, T*, Acc*, int64_t, int64_t);
AICR_INSTANTIATE(float, float)
AICR_INSTANTIATE(BFloat16, float)
AICR_INSTANTIATE(Half, float)
AICR_INSTANTIATE(double, double)
#undef AICR_INSTANTIATE

}  // namespace aicr
