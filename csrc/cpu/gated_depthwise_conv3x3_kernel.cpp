// out = GELU(a) * b, or a * b, for the halves a and b of dwconv_{3x3}(x), or that itself; zero padding, in
// one pass.
//
// A piece is a block of rows by a strip of columns of one picture (channels-last) or of one plane of the
// result. Its rows go, in the accumulation type, into a ring of three lines with a column more on each side;
// once the ring holds the rows around an output row, the sums of that row follow, eight pixels at a time
// where the values beside one another are channels, so that they share the loads of weights and neighbours,
// and then the gate. All lines are sized for the L2 cache: memory sees x read once and out written once,
// except that two rows per block and two columns per strip are read again.
// depthwise_conv3x3_avx512.cpp has a faster way for channels-last maps.
#include "cpu/gated_depthwise_conv3x3_kernel.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/gated_depthwise_conv3x3_loops.hpp"
#include "cpu/gelu.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kStripValues = 8192;  // of one line: ring and sums of floats take 128 KiB

// Values of the working memory of a piece: for each of `lines` the ring, and the sums.
int64_t memory_values(int64_t lines, int64_t columns, int64_t channels) {
  return lines * (3 * (columns + 2) + std::max<int64_t>(columns, kPixels)) * pixel_step(channels);
}

template <DepthwiseGate kGate, typename T, typename Acc>
AICR_INLINE void gate_values(const Acc* __restrict__ gate, const Acc* __restrict__ value, T* __restrict__ out,
                             int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const Acc left = kGate == DepthwiseGate::kGelu ? gelu(gate[i]) : gate[i];
    out[i] = static_cast<T>(kGate == DepthwiseGate::kNone ? left : left * value[i]);
  }
}

template <bool kPlanar, DepthwiseGate kGate, typename T, typename Acc>
AICR_INLINE void run_piece(const GatedDepthwiseShape& shape, const PiecePlan& plan, const Piece& piece,
                           const T* x, const Acc* terms, T* out, Acc* ring) {
  constexpr int64_t kLines = kGate == DepthwiseGate::kNone ? 1 : lines_of(kPlanar);
  const int64_t C = plan.channels, W = plan.width, H = plan.height;
  const int64_t line = (piece.columns + 2) * pixel_step(C);
  const ColumnRange inside = columns_around(piece, 1, W);
  const int64_t second = shape.out_channels();  // plane: that of the value
  Acc* sums = ring + 3 * kLines * line;
  std::fill(ring, ring + 3 * kLines * line, Acc(0));

  for (int64_t h = piece.top - 1; h <= piece.bottom; ++h) {
    for (int64_t half = 0; half < kLines; ++half) {
      Acc* to = ring + (3 * half + (h + 3) % 3) * line;
      if (h < 0 || h >= H) {
        std::fill(to, to + line, Acc(0));
      } else {
        load_line(x + (half * second * H + h) * W * C, piece, inside, 1, C, to);
      }
    }
    const int64_t centre = h - 1;
    if (centre < piece.top) continue;
    const Acc* rows[kLines][3];
    for (int64_t half = 0; half < kLines; ++half) {
      for (int64_t dy = 0; dy < 3; ++dy) {
        rows[half][dy] = ring + (3 * half + (centre + 2 + dy) % 3) * line;
      }
    }
    const int64_t pixel = centre * W + piece.left;
    if (kPlanar) {
      for (int64_t half = 0; half < kLines; ++half) {
        convolve_plane(rows[half], terms + half * second * kDepthwiseTerms, piece.columns,
                       sums + half * piece.columns);
      }
      gate_values<kGate>(sums, sums + (kLines - 1) * piece.columns, out + pixel, piece.columns);
    } else {
      const int64_t count = shape.out_channels();
      convolve_channels_last(
          rows[0], terms, piece.columns, C, sums, [&](int64_t w, const Acc* of_pixel) AICR_INLINE_LAMBDA {
            gate_values<kGate>(of_pixel, of_pixel + C - count, out + (pixel + w) * count, count);
          });
    }
  }
}

template <bool kPlanar, DepthwiseGate kGate, typename T, typename Acc>
AICR_INLINE void run_pieces(const GatedDepthwiseShape& shape, const T* x, const Acc* terms, T* out,
                            int64_t first, int64_t last, Acc* ring) {
  const PiecePlan plan = gated_depthwise_plan(shape, kStripValues);
  const int64_t pixels = plan.height * plan.width;
  for (int64_t i = first; i < last; ++i) {
    const Piece piece = plan.piece(i);
    const int64_t out_plane = kPlanar ? piece.picture : piece.picture * shape.out_channels();
    const int64_t channel = kPlanar ? piece.picture % shape.out_channels() : 0;
    run_piece<kPlanar, kGate>(shape, plan, piece, x + first_plane(shape, piece.picture) * pixels,
                              terms + channel * kDepthwiseTerms, out + out_plane * pixels, ring);
  }
}

template <typename T, typename Acc>
AICR_INLINE void run_any(const GatedDepthwiseShape& shape, const T* x, const Acc* terms, T* out,
                         int64_t first, int64_t last, Acc* ring) {
#define AICR_RUN(kGate) run_pieces<false, kGate>(shape, x, terms, out, first, last, ring)
#define AICR_RUN_PLANES(kGate) run_pieces<true, kGate>(shape, x, terms, out, first, last, ring)
  if (shape.map.channels_last) {
    AICR_FOR_GATE(shape, AICR_RUN);
  } else {
    AICR_FOR_GATE(shape, AICR_RUN_PLANES);
  }
#undef AICR_RUN
#undef AICR_RUN_PLANES
}

// target_clones does not go with templates, so the types are spelled out.
#define AICR_DEFINE_CLONES(T, Acc)                                                                           \
  AICR_VECTOR_CLONES void run_clones(const GatedDepthwiseShape& shape, const T* x, const Acc* terms, T* out, \
                                     int64_t first, int64_t last, Acc* ring) {                               \
    run_any(shape, x, terms, out, first, last, ring);                                                        \
  }
AICR_DEFINE_CLONES(float, float)
AICR_DEFINE_CLONES(BFloat16, float)
AICR_DEFINE_CLONES(Half, float)
#undef AICR_DEFINE_CLONES

void run_clones(const GatedDepthwiseShape& shape, const double* x, const double* terms, double* out,
                int64_t first, int64_t last, double* ring) {
  run_any(shape, x, terms, out, first, last, ring);
}

}  // namespace

template <typename Acc>
std::vector<Acc> gated_depthwise_terms(const MapShape& map, const Acc* weight, const Acc* bias) {
  std::vector<Acc> terms(kDepthwiseTerms * map.channels);
  for (int64_t c = 0; c < map.channels; ++c) {
    for (int64_t t = 0; t < kDepthwiseTerms; ++t) {
      const Acc term = t < kDepthwiseTaps ? weight[c * kDepthwiseTaps + t]
                       : bias != nullptr  ? bias[c]
                                          : Acc(0);
      terms[map.channels_last ? t * map.channels + c : c * kDepthwiseTerms + t] = term;
    }
  }
  return terms;
}

int64_t gated_depthwise_pieces(const GatedDepthwiseShape& shape) {
  return gated_depthwise_plan(shape, kStripValues).pieces();
}

template <typename T, typename Acc>
void gated_depthwise_run(const GatedDepthwiseShape& shape, const T* x, const Acc* terms, T* out,
                         int64_t first, int64_t last) {
  const PiecePlan plan = gated_depthwise_plan(shape, kStripValues);
  if constexpr (std::is_same_v<Acc, float>) {
    if (gated_depthwise_avx512(shape, plan, x, terms, out, first, last)) return;
  }
  std::vector<Acc> ring(memory_values(lines_of(!shape.map.channels_last), plan.strip, plan.channels));
  run_clones(shape, x, terms, out, first, last, ring.data());
}

template std::vector<float> gated_depthwise_terms<float>(const MapShape&, const float*, const float*);
template std::vector<double> gated_depthwise_terms<double>(const MapShape&, const double*, const double*);

#define AICR_INSTANTIATE(T, Acc)                                                                           \
  template void gated_depthwise_run<T, Acc>(const GatedDepthwiseShape&, const T*, const Acc*, T*, int64_t, \
                                            int64_t);
AICR_INSTANTIATE(float, float)
AICR_INSTANTIATE(BFloat16, float)
AICR_INSTANTIATE(Half, float)
AICR_INSTANTIATE(double, double)
#undef AICR_INSTANTIATE

}  // namespace aicr
