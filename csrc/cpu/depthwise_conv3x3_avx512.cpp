// depthwise_conv3x3 and gated_depthwise_conv3x3 of channels-last maps for AVX-512.
//
// Every column of a row of the picture is loaded once, with the rows above and below it, and goes into the
// sums of the three pixels around it, which stay in registers while the loop slides along the row. A segment
// of a row is done for the gate first, which waits in working memory, then for what it multiplies. Some rows
// follow one another in the same columns and channels, so that two of the three come from the first cache,
// while rows further on are fetched in the order in which they lie in memory: the loads of the loop are too
// far apart for the processor to foresee them. The terms of an output are added in the same order wherever it
// lies.
#include "cpu/gated_depthwise_conv3x3_kernel.hpp"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "cpu/avx512.hpp"
#include "cpu/depthwise_conv3x3_lanes.hpp"
#include "cpu/gelu.hpp"
#include "cpu/same_bits.hpp"

namespace aicr {
namespace {

constexpr int64_t kRows = 4, kColumns = 24;  // of a segment, which its channels go through at a time
constexpr int64_t kAhead = 8;                // pixels that room is made for before they are written

// What is read for rows outside the picture.
alignas(64) constexpr float kZeros[16] = {};

AICR_TARGET void gelu_all(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = gelu(values[i]);
}

// A segment of a row of the picture, and of those above and below, from the first of its columns on.
template <typename T>
struct Segment {
  const T* rows[3];
  int64_t steps[3];  // from pixel to pixel: 0 where there is no row
  int64_t columns;
  bool left, right;  // whether there are columns beside the segment

  // first: its pixel in the row. line, step: from row to row, and from pixel to pixel.
  AICR_INLINE Segment(const PiecePlan& plan, int64_t h, int64_t begin, int64_t count, const T* first,
                      int64_t line, int64_t step)
      : columns(count), left(begin > 0), right(begin + count < plan.width) {
    for (int64_t dy = 0; dy < 3; ++dy) {
      const int64_t row = h + dy - 1;
      const bool inside = row >= 0 && row < plan.height;
      rows[dy] = inside ? first + (dy - 1) * line : reinterpret_cast<const T*>(kZeros);
      steps[dy] = inside ? step : 0;
    }
  }
};

// Whether pixels lie so far apart that their channels fall into few places of the first cache, and that
// processors take loads for ones of what was just stored.
template <typename T>
bool far_apart(int64_t channels) {
  return channels * static_cast<int64_t>(sizeof(T)) % 512 == 0;
}

// The channels of a group from one column and row before left and top on, beside one another.
template <typename Lanes>
struct Copies {
  using T = typename Lanes::T;
  static constexpr int64_t kLine = (kColumns + 2) * Lanes::kValues;
  alignas(64) T values[(kRows + 2) * kLine];

  // x: of the picture, the first channel.
  AICR_TARGET_INLINE void take(const PiecePlan& plan, const T* x, int64_t top, int64_t bottom, int64_t left,
                               int64_t right) {
    const int64_t first = std::max<int64_t>(left - 1, 0), last = std::min(right + 1, plan.width);
    for (int64_t h = std::max<int64_t>(top - 1, 0); h < std::min(bottom + 1, plan.height); ++h) {
      const T* from = x + h * plan.width * plan.channels;
      T* to = values + (h - top + 1) * kLine + Lanes::kValues;
      for (int64_t w = first; w < last; ++w) {
        std::memcpy(static_cast<void*>(to + (w - left) * Lanes::kValues), from + w * plan.channels,
                    Lanes::kValues * sizeof(T));
      }
    }
  }
  const T* pixel(int64_t row) const { return values + (row + 1) * kLine + Lanes::kValues; }
};

// Calls each(column, sums) with the convolution at every column. next: what to fetch, so many bytes a column
// as are loaded of a row.
template <typename Lanes, typename Each>
AICR_TARGET_INLINE void convolve(const Segment<typename Lanes::T>& segment, const float* terms,
                                 const char* next, const Each& each) {
  using T = typename Lanes::T;
  const auto weights = Lanes::weights(terms);
  const typename Lanes::Sums bias = weights.bias;
  const T *above = segment.rows[0], *row = segment.rows[1], *below = segment.rows[2];
  typename Lanes::Sums here = bias, right = bias;  // of the pixel of a column and of that on its right
  if (segment.left) {
    here = Lanes::add(here,
                      Lanes::load(above - segment.steps[0], row - segment.steps[1], below - segment.steps[2]),
                      weights, 0);
  }
  const auto first = Lanes::load(above, row, below);
  here = Lanes::add(here, first, weights, 1);
  right = Lanes::add(bias, first, weights, 0);
  const int64_t loaded = segment.right ? segment.columns : segment.columns - 1;
  for (int64_t n = 0; n < loaded; ++n) {
    above += segment.steps[0];
    row += segment.steps[1];
    below += segment.steps[2];
    const auto column = Lanes::load(above, row, below);
    const typename Lanes::Sums done = Lanes::add(here, column, weights, 2);
    here = Lanes::add(right, column, weights, 1);
    right = Lanes::add(bias, column, weights, 0);
    __builtin_prefetch(next + n * Lanes::kValues * static_cast<int64_t>(sizeof(T)), 0, 2);
    each(n, done);
  }
  if (!segment.right) each(segment.columns - 1, here);
}

// What comes of the convolution at a gate. out: where the result will be written.
template <typename Lanes>
struct KeepGates {
  float* gates;
  typename Lanes::T* out;
  int64_t step;

  AICR_TARGET_INLINE void operator()(int64_t n, const typename Lanes::Sums& sums) const {
    __builtin_prefetch(out + n * step, 1, 3);
    Lanes::keep(sums, gates + n * Lanes::kValues);
  }
};

// And at what it multiplies.
template <typename Lanes>
struct StoreProducts {
  const float* gates;
  typename Lanes::T* out;
  int64_t step;

  AICR_TARGET_INLINE void operator()(int64_t n, const typename Lanes::Sums& sums) const {
    Lanes::store(Lanes::times(sums, gates + n * Lanes::kValues), out + n * step);
  }
};

// And without gates.
template <typename Lanes>
struct StoreSums {
  typename Lanes::T* out;
  int64_t step;

  AICR_TARGET_INLINE void operator()(int64_t n, const typename Lanes::Sums& sums) const {
    __builtin_prefetch(out + (n + kAhead) * step, 1, 3);
    Lanes::store(sums, out + n * step);
  }
};

// Groups of channels; the last begins so early that it is full.
template <typename Lanes>
int64_t groups_of(int64_t channels) {
  return divide_up(channels, Lanes::kValues);
}
template <typename Lanes>
int64_t group_begin(int64_t group, int64_t channels) {
  return std::min(group * Lanes::kValues, channels - Lanes::kValues);
}

// x, out: of the piece's picture. terms: arranged.
template <typename Lanes, DepthwiseGate kGate>
AICR_TARGET void run_piece(const PiecePlan& plan, const Piece& piece, const typename Lanes::T* x,
                           const float* terms, typename Lanes::T* out) {
  using T = typename Lanes::T;
  constexpr int64_t kParts = kGate == DepthwiseGate::kNone ? 1 : 2;
  const int64_t C = plan.channels, W = plan.width, count = C / kParts;
  const int64_t groups = groups_of<Lanes>(count), end = piece.left + piece.columns;
  const bool copied = far_apart<T>(C);
  const int64_t line = copied ? Copies<Lanes>::kLine : W * C, step = copied ? Lanes::kValues : C;
  alignas(64) float gates[kColumns * Lanes::kValues];
  Copies<Lanes> copies[kParts];
  for (int64_t top = piece.top; top < piece.bottom; top += kRows) {
    const int64_t bottom = std::min(top + kRows, piece.bottom);
    for (int64_t left = piece.left; left < end; left += kColumns) {
      const int64_t right = std::min(left + kColumns, end), columns = right - left;
      const int64_t fetched = columns * Lanes::kValues * static_cast<int64_t>(sizeof(T));
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t at = group_begin<Lanes>(group, count);
        const float* of_group = terms + kParts * group * Lanes::kTerms;
        for (int64_t part = 0; copied && part < kParts; ++part) {
          copies[part].take(plan, x + at + part * count, top, bottom, left, right);
        }
        for (int64_t h = top; h < bottom; ++h) {
          const int64_t later = std::min({h + kRows + 1, piece.bottom, plan.height - 1});
          const char* next =
              reinterpret_cast<const char*>(x + (later * W + left) * C) + kParts * group * fetched;
          const auto segment = [&](int64_t part) {
            const T* first = x + (h * W + left) * C + at + part * count;
            return Segment<T>(plan, h, left, columns, copied ? copies[part].pixel(h - top) : first, line,
                              step);
          };
          T* to = out + (h * W + left) * count + at;
          if constexpr (kGate == DepthwiseGate::kNone) {
            convolve<Lanes>(segment(0), of_group, next, StoreSums<Lanes>{to, count});
          } else {
            convolve<Lanes>(segment(0), of_group, next, KeepGates<Lanes>{gates, to, count});
            if (kGate == DepthwiseGate::kGelu) gelu_all(gates, columns * Lanes::kValues);
            convolve<Lanes>(segment(1), of_group + Lanes::kTerms, next + fetched,
                            StoreProducts<Lanes>{gates, to, count});
          }
        }
      }
    }
  }
}

template <typename Lanes>
bool run_pieces(const GatedDepthwiseShape& shape, const PiecePlan& plan, const typename Lanes::T* x,
                const float* terms, typename Lanes::T* out, int64_t first, int64_t last) {
  const int64_t count = shape.out_channels(), parts = shape.parts(), pixels = plan.height * plan.width;
  if (count < Lanes::kValues) return false;
  const int64_t groups = groups_of<Lanes>(count);
  std::vector<float> memory(parts * groups * Lanes::kTerms + 16);
  float* arranged = memory.data();
  while (reinterpret_cast<uintptr_t>(arranged) % 64 != 0) ++arranged;
  for (int64_t n = 0; n < parts * groups; ++n) {
    Lanes::arrange(terms + n % parts * count + group_begin<Lanes>(n / parts, count), plan.channels,
                   arranged + n * Lanes::kTerms);
  }
  for (int64_t i = first; i < last; ++i) {
    const Piece piece = plan.piece(i);
    const auto* from = x + piece.picture * pixels * plan.channels;
    auto* to = out + piece.picture * pixels * count;
#define AICR_RUN(kGate) run_piece<Lanes, kGate>(plan, piece, from, arranged, to)
    AICR_FOR_GATE(shape, AICR_RUN);
#undef AICR_RUN
  }
  return true;
}

bool all_bfloat16(const float* terms, int64_t count) {
  return std::all_of(terms, terms + count, [](float term) { return same_bits<uint32_t>(term) % 65536 == 0; });
}

}  // namespace

template <typename T>
bool gated_depthwise_avx512(const GatedDepthwiseShape& shape, const PiecePlan& plan, const T* x,
                            const float* terms, T* out, int64_t first, int64_t last) {
  static const bool supported = has_avx512(), instructions = has_avx512_bfloat16();
  if (!supported || !shape.map.channels_last) return false;
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (!instructions) return run_pieces<WideLanes<false>>(shape, plan, x, terms, out, first, last);
    if (all_bfloat16(terms, kDepthwiseTaps * shape.map.channels)) {
      return run_pieces<PairLanes>(shape, plan, x, terms, out, first, last);
    }
    return run_pieces<WideLanes<true>>(shape, plan, x, terms, out, first, last);
  } else {
    return run_pieces<FloatLanes<T>>(shape, plan, x, terms, out, first, last);
  }
}

#else

namespace aicr {

template <typename T>
bool gated_depthwise_avx512(const GatedDepthwiseShape&, const PiecePlan&, const T*, const float*, T*, int64_t,
                            int64_t) {
  return false;
}

#endif

#define AICR_INSTANTIATE(T)                                                                       \
  template bool gated_depthwise_avx512<T>(const GatedDepthwiseShape&, const PiecePlan&, const T*, \
                                          const float*, T*, int64_t, int64_t);
AICR_INSTANTIATE(float)
AICR_INSTANTIATE(torch::headeronly::BFloat16)
AICR_INSTANTIATE(torch::headeronly::Half)
#undef AICR_INSTANTIATE

}  // namespace aicr
