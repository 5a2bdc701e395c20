// out = z * r * weight + bias with r = 1 / sqrt(var(x) + eps) and z = x - mean(x) or x, over channels.
//
// A piece is a range of pixels: channels-last one pixel after the other, each a short row of channels; as
// planes a block of pixels, all of whose sums form side by side. A piece is converted once to the
// accumulation type, into a buffer that stays in the cache: memory sees every input read once and every
// result written once. layer_norm2d_vectors.hpp has a faster way for the result of channels-last pixels in
// float32 and bfloat16 with at least as many channels as two vectors hold values.
//
// Backward, with g = grad * weight and d = x - mean: grad_x = r * (g - mean(g) - d * r^2 * mean(g * z)),
// where mean(g) is left out if the mean is not subtracted. The gradients of weight and bias are sums over
// pixels: one partial sum per piece, added up by the caller in the order of the pieces.
#include "cpu/layer_norm2d_kernel.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/avx512.hpp"
#include "cpu/layer_norm2d_vectors.hpp"
#include "cpu/tiles.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kPieceValues = 16384;  // 64 KiB of float per buffer
// At least for long loops over planes, at most for short float sums: the parts are added up in double.
constexpr int64_t kMinPiecePixels = 32, kMaxPiecePixels = 128;

constexpr int64_t kGroup = 16;  // pixels that go through the steps of channels-last together

// How a shape is cut. Channels-last, the pictures of a batch are one long row of pixels.
struct Plan {
  int64_t channels, pictures, pixels, piece_pixels, blocks;

  explicit Plan(const LayerNorm2dShape& s)
      : channels(s.channels),
        pictures(s.channels_last ? std::min<int64_t>(s.batch, 1) : s.batch),
        pixels(s.channels_last ? s.batch * s.pixels : s.pixels),
        piece_pixels(
            std::clamp(kPieceValues / std::max<int64_t>(channels, 1), kMinPiecePixels, kMaxPiecePixels)),
        blocks(divide_up(pixels, piece_pixels)) {}

  int64_t pieces() const { return channels > 0 ? pictures * blocks : 0; }
  int64_t scratch() const { return 2 * channels * piece_pixels + 4 * piece_pixels; }
};

// Up to kGroup pixels, channels-last; `wide` is room for their channels. Step by step for all of them,
// because the sums of one pixel, the root and the quotient wait for one another.
template <bool kSubtract, typename T, typename Acc>
AICR_INLINE void forward_pixels(const T* __restrict__ x, const Acc* __restrict__ weight,
                                const Acc* __restrict__ bias, T* __restrict__ out, int64_t count, int64_t C,
                                Acc eps, Acc* __restrict__ wide) {
  Acc mean[kGroup] = {}, r[kGroup] = {};
  for (int64_t p = 0; p < count; ++p) {
    Acc sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < C; ++c) {
      wide[p * C + c] = static_cast<Acc>(x[p * C + c]);
      sum += wide[p * C + c];
    }
    mean[p] = sum;
  }
  for (int64_t p = 0; p < kGroup; ++p) mean[p] /= C;
  for (int64_t p = 0; p < count; ++p) {
    const Acc m = mean[p];
    Acc squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t c = 0; c < C; ++c) squares += (wide[p * C + c] - m) * (wide[p * C + c] - m);
    r[p] = squares;
  }
  for (int64_t p = 0; p < kGroup; ++p) r[p] = 1 / std::sqrt(r[p] / C + eps);
  for (int64_t p = 0; p < count; ++p) {
    const Acc shift = kSubtract ? mean[p] : 0, factor = r[p];
    for (int64_t c = 0; c < C; ++c) {
      out[p * C + c] = static_cast<T>((wide[p * C + c] - shift) * factor * weight[c] + bias[c]);
    }
  }
}

template <bool kSubtract, typename T, typename Acc>
AICR_INLINE void backward_pixel(const T* __restrict__ grad, const T* __restrict__ x,
                                const Acc* __restrict__ weight, T* __restrict__ grad_x,
                                Acc* __restrict__ grad_weight, Acc* __restrict__ grad_bias, int64_t C,
                                Acc eps, Acc* __restrict__ wide, Acc* __restrict__ wide_grad) {
  Acc sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < C; ++c) {
    wide[c] = static_cast<Acc>(x[c]);
    wide_grad[c] = static_cast<Acc>(grad[c]);
    sum += wide[c];
  }
  const Acc mean = sum / C, shift = kSubtract ? mean : 0;
  Acc squares = 0, g_sum = 0, gz_sum = 0;
#pragma omp simd reduction(+ : squares, g_sum, gz_sum)
  for (int64_t c = 0; c < C; ++c) {
    const Acc g = wide_grad[c] * weight[c];
    squares += (wide[c] - mean) * (wide[c] - mean);
    g_sum += g;
    gz_sum += g * (wide[c] - shift);
  }
  const Acc r = 1 / std::sqrt(squares / C + eps);
  const Acc g_mean = kSubtract ? g_sum / C : 0, slope = gz_sum / C * r * r;
  for (int64_t c = 0; c < C; ++c) {
    const Acc g = wide_grad[c] * weight[c];
    grad_x[c] = static_cast<T>(r * (g - g_mean - (wide[c] - mean) * slope));
    grad_weight[c] += wide_grad[c] * (wide[c] - shift) * r;
  }
  if (grad_bias == nullptr) return;
  for (int64_t c = 0; c < C; ++c) grad_bias[c] += wide_grad[c];
}

// Mean and 1 / sqrt(var + eps) of `count` pixels, whose values are put into wide[channel][count].
template <typename T, typename Acc>
AICR_INLINE void plane_statistics(const T* __restrict__ x, int64_t C, int64_t plane, int64_t count, Acc eps,
                                  Acc* __restrict__ wide, Acc* __restrict__ mean, Acc* __restrict__ r) {
  std::fill(mean, mean + count, Acc(0));
  std::fill(r, r + count, Acc(0));
  for (int64_t c = 0; c < C; ++c) {
    for (int64_t p = 0; p < count; ++p) {
      wide[c * count + p] = static_cast<Acc>(x[c * plane + p]);
      mean[p] += wide[c * count + p];
    }
  }
  for (int64_t p = 0; p < count; ++p) mean[p] /= C;
  for (int64_t c = 0; c < C; ++c) {
    for (int64_t p = 0; p < count; ++p) {
      r[p] += (wide[c * count + p] - mean[p]) * (wide[c * count + p] - mean[p]);
    }
  }
  for (int64_t p = 0; p < count; ++p) r[p] = 1 / std::sqrt(r[p] / C + eps);
}

// `count` pixels of planes that lie `plane` values apart.
template <bool kSubtract, typename T, typename Acc>
AICR_INLINE void forward_planes(const T* __restrict__ x, const Acc* __restrict__ weight,
                                const Acc* __restrict__ bias, T* __restrict__ out, int64_t C, int64_t plane,
                                int64_t count, Acc eps, Acc* __restrict__ scratch) {
  Acc* __restrict__ wide = scratch;
  Acc* __restrict__ mean = wide + C * count;
  Acc* __restrict__ r = mean + count;
  plane_statistics(x, C, plane, count, eps, wide, mean, r);
  for (int64_t c = 0; c < C; ++c) {
    const Acc w = weight[c], b = bias[c];
    for (int64_t p = 0; p < count; ++p) {
      out[c * plane + p] =
          static_cast<T>((wide[c * count + p] - (kSubtract ? mean[p] : Acc(0))) * r[p] * w + b);
    }
  }
}

template <bool kSubtract, typename T, typename Acc>
AICR_INLINE void backward_planes(const T* __restrict__ grad, const T* __restrict__ x,
                                 const Acc* __restrict__ weight, T* __restrict__ grad_x,
                                 Acc* __restrict__ grad_weight, Acc* __restrict__ grad_bias, int64_t C,
                                 int64_t plane, int64_t count, Acc eps, Acc* __restrict__ scratch) {
  Acc* __restrict__ wide = scratch;
  Acc* __restrict__ mean = wide + C * count;
  Acc* __restrict__ r = mean + count;
  Acc* __restrict__ g_mean = r + count;
  Acc* __restrict__ slope = g_mean + count;
  Acc* __restrict__ wide_grad = slope + count;
  plane_statistics(x, C, plane, count, eps, wide, mean, r);
  std::fill(g_mean, g_mean + count, Acc(0));
  std::fill(slope, slope + count, Acc(0));
  for (int64_t c = 0; c < C; ++c) {
    Acc weight_sum = 0, bias_sum = 0;
#pragma omp simd reduction(+ : weight_sum, bias_sum)
    for (int64_t p = 0; p < count; ++p) {
      const Acc up = static_cast<Acc>(grad[c * plane + p]), g = up * weight[c];
      const Acc z = wide[c * count + p] - (kSubtract ? mean[p] : Acc(0));
      wide_grad[c * count + p] = g;
      g_mean[p] += g;
      slope[p] += g * z;
      weight_sum += up * z * r[p];
      bias_sum += up;
    }
    grad_weight[c] += weight_sum;
    if (grad_bias != nullptr) grad_bias[c] += bias_sum;
  }
  for (int64_t p = 0; p < count; ++p) {
    g_mean[p] = kSubtract ? g_mean[p] / C : Acc(0);
    slope[p] = slope[p] / C * r[p] * r[p];
  }
  for (int64_t c = 0; c < C; ++c) {
    for (int64_t p = 0; p < count; ++p) {
      const Acc d = wide[c * count + p] - mean[p];
      grad_x[c * plane + p] = static_cast<T>(r[p] * (wide_grad[c * count + p] - g_mean[p] - d * slope[p]));
    }
  }
}

template <bool kSubtract, typename T, typename Acc>
AICR_INLINE void forward_pieces(const LayerNorm2dShape& shape, const T* x, const Acc* weight, const Acc* bias,
                                T* out, int64_t first, int64_t last, Acc* scratch) {
  const Plan plan(shape);
  const int64_t C = plan.channels;
  const Acc eps = static_cast<Acc>(shape.eps);
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t begin = piece % plan.blocks * plan.piece_pixels;
    const int64_t end = std::min(begin + plan.piece_pixels, plan.pixels);
    if (shape.channels_last) {
      for (int64_t p = begin; p < end; p += kGroup) {
        forward_pixels<kSubtract>(x + p * C, weight, bias, out + p * C, std::min(kGroup, end - p), C, eps,
                                  scratch);
      }
    } else {
      const int64_t at = piece / plan.blocks * C * plan.pixels + begin;
      forward_planes<kSubtract>(x + at, weight, bias, out + at, C, plan.pixels, end - begin, eps, scratch);
    }
  }
}

template <bool kSubtract, typename T, typename Acc>
AICR_INLINE void backward_pieces(const LayerNorm2dShape& shape, const T* grad, const T* x, const Acc* weight,
                                 T* grad_x, Acc* grad_weight, Acc* grad_bias, int64_t first, int64_t last,
                                 Acc* scratch) {
  const Plan plan(shape);
  const int64_t C = plan.channels;
  const Acc eps = static_cast<Acc>(shape.eps);
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t begin = piece % plan.blocks * plan.piece_pixels;
    const int64_t end = std::min(begin + plan.piece_pixels, plan.pixels);
    Acc* my_weight = grad_weight + piece * C;
    Acc* my_bias = grad_bias == nullptr ? nullptr : grad_bias + piece * C;
    std::fill(my_weight, my_weight + C, Acc(0));
    if (my_bias != nullptr) std::fill(my_bias, my_bias + C, Acc(0));
    if (shape.channels_last) {
      for (int64_t p = begin; p < end; ++p) {
        backward_pixel<kSubtract>(grad + p * C, x + p * C, weight, grad_x + p * C, my_weight, my_bias, C, eps,
                                  scratch, scratch + C);
      }
    } else {
      const int64_t at = piece / plan.blocks * C * plan.pixels + begin;
      backward_planes<kSubtract>(grad + at, x + at, weight, grad_x + at, my_weight, my_bias, C, plan.pixels,
                                 end - begin, eps, scratch);
    }
  }
}

template <typename T, typename Acc>
AICR_INLINE void forward_any(const LayerNorm2dShape& shape, const T* x, const Acc* weight, const Acc* bias,
                             T* out, int64_t first, int64_t last, Acc* scratch) {
  if (shape.subtract_mean) {
    forward_pieces<true>(shape, x, weight, bias, out, first, last, scratch);
  } else {
    forward_pieces<false>(shape, x, weight, bias, out, first, last, scratch);
  }
}

template <typename T, typename Acc>
AICR_INLINE void backward_any(const LayerNorm2dShape& shape, const T* grad, const T* x, const Acc* weight,
                              T* grad_x, Acc* grad_weight, Acc* grad_bias, int64_t first, int64_t last,
                              Acc* scratch) {
  if (shape.subtract_mean) {
    backward_pieces<true>(shape, grad, x, weight, grad_x, grad_weight, grad_bias, first, last, scratch);
  } else {
    backward_pieces<false>(shape, grad, x, weight, grad_x, grad_weight, grad_bias, first, last, scratch);
  }
}

// target_clones does not go with templates, so the types are spelled out.
#define AICR_DEFINE_CLONES(T, Acc)                                                                        \
  AICR_VECTOR_CLONES void forward_clones(const LayerNorm2dShape& shape, const T* x, const Acc* weight,    \
                                         const Acc* bias, T* out, int64_t first, int64_t last,            \
                                         Acc* scratch) {                                                  \
    forward_any(shape, x, weight, bias, out, first, last, scratch);                                       \
  }                                                                                                       \
  AICR_VECTOR_CLONES void backward_clones(const LayerNorm2dShape& shape, const T* grad, const T* x,       \
                                          const Acc* weight, T* grad_x, Acc* grad_weight, Acc* grad_bias, \
                                          int64_t first, int64_t last, Acc* scratch) {                    \
    backward_any(shape, grad, x, weight, grad_x, grad_weight, grad_bias, first, last, scratch);           \
  }
AICR_DEFINE_CLONES(float, float)
AICR_DEFINE_CLONES(BFloat16, float)
AICR_DEFINE_CLONES(Half, float)
AICR_DEFINE_CLONES(double, double)
#undef AICR_DEFINE_CLONES

template <int kBytes, bool kOne, typename Values, typename T>
AICR_INLINE void forward_groups(const LayerNorm2dShape& shape, const T* x, const float* weight,
                                const float* bias, T* out, int64_t pixels,
                                const ChannelVectors<kBytes>& vectors) {
  const PixelGroups<kBytes, kOne, Values, T> groups{
      x, out, weight, bias, pixels, static_cast<float>(shape.eps), vectors};
  if (shape.subtract_mean) {
    groups.template normalise<true>();
  } else {
    groups.template normalise<false>();
  }
}

template <int kBytes, typename T>
AICR_INLINE bool forward_any_vectors(const LayerNorm2dShape& shape, const T* x, const float* weight,
                                     const float* bias, T* out, int64_t first, int64_t last, float* scratch) {
  const Plan plan(shape);
  const int64_t C = plan.channels;
  if (!shape.channels_last || C < Pair<kBytes>::kValues) return false;
  const ChannelVectors<kBytes> vectors(C, x);
  float* arranged = scratch + vectors.pairs() * vectors.kValues;
  vectors.arrange(weight, x, scratch);
  vectors.arrange(bias, x, arranged);
  const int64_t begin = first * plan.piece_pixels, end = std::min(last * plan.piece_pixels, plan.pixels);
#define AICR_RUN(kOne, kRounds)                                                                \
  forward_groups<kBytes, kOne, Pair<kBytes, kRounds>>(shape, x + begin * C, scratch, arranged, \
                                                      out + begin * C, end - begin, vectors)
  const bool one = C == Pair<kBytes>::kValues;
  if constexpr (kBytes == 64 && std::is_same_v<T, BFloat16>) {
    if (has_avx512_bfloat16()) {
      if (one) AICR_RUN(true, true);
      if (!one) AICR_RUN(false, true);
      return true;
    }
  }
  if (one) AICR_RUN(true, false);
  if (!one) AICR_RUN(false, false);
#undef AICR_RUN
  return true;
}

// True if the shape was such that the pieces are computed.
#define AICR_DEFINE_VECTORS(T)                                                                      \
  AICR_FOR_EACH_VECTOR(                                                                             \
      bool forward_vectors(const LayerNorm2dShape& shape, const T* x, const float* weight,          \
                           const float* bias, T* out, int64_t first, int64_t last, float* scratch), \
      return forward_any_vectors<kBytes>(shape, x, weight, bias, out, first, last, scratch);)
AICR_DEFINE_VECTORS(float)
AICR_DEFINE_VECTORS(BFloat16)
#undef AICR_DEFINE_VECTORS

template <typename T, typename Acc>
bool forward_vectors(const LayerNorm2dShape&, const T*, const Acc*, const Acc*, T*, int64_t, int64_t, Acc*) {
  return false;
}

}  // namespace

int64_t layer_norm2d_pieces(const LayerNorm2dShape& shape) {
  return Plan(shape).pieces();
}

template <typename T, typename Acc>
void layer_norm2d_run(const LayerNorm2dShape& shape, const T* x, const Acc* weight, const Acc* bias, T* out,
                      int64_t first, int64_t last) {
  std::vector<Acc> scratch(Plan(shape).scratch());
  if (forward_vectors(shape, x, weight, bias, out, first, last, scratch.data())) return;
  forward_clones(shape, x, weight, bias, out, first, last, scratch.data());
}

template <typename T, typename Acc>
void layer_norm2d_backward_run(const LayerNorm2dShape& shape, const T* grad, const T* x, const Acc* weight,
                               T* grad_x, Acc* grad_weight, Acc* grad_bias, int64_t first, int64_t last) {
  std::vector<Acc> scratch(Plan(shape).scratch());
  backward_clones(shape, grad, x, weight, grad_x, grad_weight, grad_bias, first, last, scratch.data());
}

#define AICR_INSTANTIATE(T, Acc)                                                                           \
  template void layer_norm2d_run<T, Acc>(const LayerNorm2dShape&, const T*, const Acc*, const Acc*, T*,    \
                                         int64_t, int64_t);                                                \
  template void layer_norm2d_backward_run<T, Acc>(const LayerNorm2dShape&, const T*, const T*, const Acc*, \
                                                  T*, Acc*, Acc*, int64_t, int64_t);
AICR_INSTANTIATE(float, float)
AICR_INSTANTIATE(BFloat16, float)
AICR_INSTANTIATE(Half, float)
AICR_INSTANTIATE(double, double)
#undef AICR_INSTANTIATE

}  // namespace aicr
