// 1x1 convolutions of channels-last maps for AVX-512. In bfloat16 one instruction multiplies two channels of
// a pixel by their weights for 16 outputs and adds both products, in float32; in float32 one multiplies one
// channel.
//
// A tile is some pixels by some vectors of outputs, 24 sums that stay in registers: the weights of a channel,
// or of a pair, are loaded once for all its pixels, and the value of each pixel once for all its vectors. A
// block of pixels is normalised into the first cache, as layer_norm2d does it, and goes through all columns
// of tiles there. Lines of the result are asked for before the products whose sums they receive, because
// stores that wait for them would fill the queue; and, tile by tile, what the next block is going to read.
// What is added to products waits until those of a tile are done, and meets them in the first cache.
//
// Only functions with AICR_TARGET are compiled for that instruction set, because the linker may keep this
// file's copy of any function that other files use too.
#include "cpu/pointwise_tiles_kernel.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// What gcc's own header leaves undefined on purpose, where a mask takes none of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>

#include "cpu/avx512.hpp"
#include "cpu/layer_norm2d_vectors.hpp"

#define AICR_TARGET __attribute__((target("arch=x86-64-v4,avx512bf16,prfchw")))
#define AICR_TARGET_INLINE AICR_TARGET __attribute__((always_inline)) inline

namespace aicr {
namespace {

using torch::headeronly::BFloat16;

// What layer_norm2d takes a value for.
template <typename Value>
using ElementOf = std::conditional_t<std::is_same_v<Value, float>, float, BFloat16>;

constexpr int64_t kMostVectors = 4;
constexpr int64_t kLine = 64;  // bytes of the cache

int64_t vectors_of(int64_t outputs) {
  return (outputs + kPointwiseLanes - 1) / kPointwiseLanes;
}

// Where a line begins, less than one behind the begin of the memory.
template <typename Value>
Value* aligned(std::vector<Value>& memory) {
  return memory.data() + (kLine - reinterpret_cast<uintptr_t>(memory.data()) % kLine) % kLine / sizeof(Value);
}

// Channels, or pairs of them.
template <typename Value>
int64_t steps_of(int64_t channels) {
  constexpr int64_t kTogether = PointwiseNumbers<Value>::kTogether;
  return (channels + kTogether - 1) / kTogether;
}

// Vectors of the next column of tiles, when so many are left: as few columns as can be, of nearly one width.
int64_t column_vectors(int64_t left) {
  const int64_t columns = (left + kMostVectors - 1) / kMostVectors;
  return (left + columns - 1) / columns;
}

bool has_amx_bfloat16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0;
}

// Weights of 16 outputs, and the value of a pixel in all lanes.
AICR_TARGET_INLINE __m512i load_weights(const uint32_t* at) {
  return _mm512_loadu_si512(at);
}
AICR_TARGET_INLINE __m512 load_weights(const float* at) {
  return _mm512_loadu_ps(at);
}

AICR_TARGET_INLINE __m512i in_all_lanes(const uint16_t* at) {
  int32_t both;
  std::memcpy(&both, at, sizeof both);
  return _mm512_set1_epi32(both);
}
AICR_TARGET_INLINE __m512 in_all_lanes(const float* at) {
  return _mm512_set1_ps(*at);
}

// As _mm512_dpbf16_ps and _mm512_fmadd_ps, with which gcc copies sums to the stack and back in the loop of a
// tile.
AICR_TARGET_INLINE void add_products(__m512& sum, __m512i weights, __m512i inputs) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
}
AICR_TARGET_INLINE void add_products(__m512& sum, __m512 weights, __m512 inputs) {
  asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
}

// The first `count` of the outputs of two vectors, or of one.
AICR_TARGET_INLINE void store(uint16_t* out, int64_t count, __m512 low, __m512 high) {
  const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  if (count >= 2 * kPointwiseLanes) {
    _mm512_storeu_si512(out, both);
  } else {
    _mm512_mask_storeu_epi16(out, (__mmask32(1) << count) - 1, both);
  }
}

AICR_TARGET_INLINE void store(uint16_t* out, int64_t count, __m512 low) {
  const __m256i values = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(low));
  if (count >= kPointwiseLanes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), values);
  } else {
    _mm256_mask_storeu_epi16(out, static_cast<__mmask16>((1u << count) - 1), values);
  }
}

AICR_TARGET_INLINE void store(float* out, int64_t count, __m512 low) {
  if (count >= kPointwiseLanes) {
    _mm512_storeu_ps(out, low);
  } else {
    _mm512_mask_storeu_ps(out, static_cast<__mmask16>((1u << count) - 1), low);
  }
}

AICR_TARGET_INLINE void store(float* out, int64_t count, __m512 low, __m512 high) {
  store(out, count, low);
  store(out + kPointwiseLanes, count - kPointwiseLanes, high);
}

// The first `count` of the values of a vector.
AICR_TARGET_INLINE __m512 load(const float* at, int64_t count) {
  if (count >= kPointwiseLanes) return _mm512_loadu_ps(at);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), at);
}

AICR_TARGET_INLINE __m512 load(const uint16_t* at, int64_t count) {
  const __m256i halves = count >= kPointwiseLanes
                             ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))
                             : _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), at);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

// Asks for the lines that `count` outputs of some pixels lie in, in order to write them. Not within tile():
// gcc would take its sums for something that may be read here, and keep them in memory.
template <typename Value>
AICR_TARGET_INLINE void expect(const Value* out, int64_t pixels, int64_t outputs, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(Value));
  for (int64_t p = 0; p < pixels; ++p) {
    const char* row = reinterpret_cast<const char*>(out + p * outputs);
    for (int64_t byte = 0; byte < bytes; byte += kLine) __builtin_prefetch(row + byte, 1);
    __builtin_prefetch(row + bytes - 1, 1);
  }
}

// kRows pixels times kVectors * 16 outputs, of which the map has `count` at least one. For the sums to stay
// in registers gcc has to be told to unroll, and to leave this function by itself.
template <int kRows, int kVectors, typename Value, typename Out>
AICR_TARGET __attribute__((noinline)) void tile(const Value* x, int64_t step, int64_t channels,
                                                const typename PointwiseNumbers<Value>::Weight* weight,
                                                const float* bias, Out* out, int64_t outputs, int64_t count) {
  constexpr int64_t kTogether = PointwiseNumbers<Value>::kTogether;
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
    const __m512 from = _mm512_loadu_ps(bias + v * kPointwiseLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sum[r][v] = from;
  }
  // An odd number of channels: the last by itself, because what follows it in memory may be not-a-number.
  Value last[kRows][kTogether];
  for (int64_t steps = channels / kTogether, done = 0;; steps = 1, step = kTogether) {
    for (int64_t k = 0; k < steps; ++k, x += kTogether, weight += kVectors * kPointwiseLanes) {
      decltype(load_weights(weight)) w[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) w[v] = load_weights(weight + v * kPointwiseLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto value = in_all_lanes(x + r * step);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) add_products(sum[r][v], w[v], value);
      }
    }
    done += kTogether * steps;
    if (done >= channels) break;
    for (int r = 0; r < kRows; ++r) {
      last[r][0] = x[r * step];
      for (int64_t i = 1; i < kTogether; ++i) last[r][i] = 0;
    }
    x = last[0];
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    Out* row = out + r * outputs;
#pragma GCC unroll 16
    for (int v = 0; v + 1 < kVectors; v += 2) {
      store(row + v * kPointwiseLanes, count - v * kPointwiseLanes, sum[r][v], sum[r][v + 1]);
    }
    if (kVectors % 2 != 0) {
      constexpr int v = kVectors - 1;
      store(row + v * kPointwiseLanes, count - v * kPointwiseLanes, sum[r][v]);
    }
  }
}

// What is going to be read next, asked for a share at a time.
struct Ahead {
  struct Range {
    const char* at = nullptr;
    const char* end = nullptr;
    int64_t share = 0;  // bytes, whole lines
  };
  Range ranges[2];

  void ask() {
    for (Range& range : ranges) {
      const char* to = std::min(range.at + range.share, range.end);
      for (; range.at < to; range.at += kLine) __builtin_prefetch(range.at);
    }
  }
};

// out = sums + added of some pixels. Sums have whole vectors, of which the map has `count` values at least
// one.
template <int kVectors, typename Value>
AICR_TARGET_INLINE void add_rows(const float* sums, int64_t pixels, const Value* added, Value* out,
                                 int64_t outputs, int64_t count) {
  for (int64_t p = 0; p < pixels; ++p, sums += kVectors * kPointwiseLanes, added += outputs, out += outputs) {
#pragma GCC unroll 4
    for (int64_t at = 0; at < kVectors * kPointwiseLanes; at += kPointwiseLanes) {
      store(out + at, count - at, _mm512_add_ps(_mm512_load_ps(sums + at), load(added + at, count - at)));
    }
  }
}

// kRows pixels of a column of tiles.
template <int kRows, int kVectors, bool kAdds, typename Value>
AICR_TARGET_INLINE void rows(const Value* x, int64_t step, int64_t channels,
                             const typename PointwiseNumbers<Value>::Weight* weight, const float* bias,
                             const Value* added, Value* out, int64_t outputs, int64_t count) {
  if constexpr (kAdds) {
    constexpr int64_t kWidth = kVectors * kPointwiseLanes;
    alignas(kLine) float sums[kRows * kWidth];
    tile<kRows, kVectors>(x, step, channels, weight, bias, sums, kWidth, kWidth);
    add_rows<kVectors>(sums, kRows, added, out, outputs, count);
  } else {
    tile<kRows, kVectors>(x, step, channels, weight, bias, out, outputs, count);
  }
}

// A column of tiles: all pixels of a block.
template <int kRows, int kVectors, bool kAdds, typename Value>
AICR_TARGET void column(const Value* x, int64_t step, int64_t pixels, int64_t channels,
                        const typename PointwiseNumbers<Value>::Weight* weight, const float* bias,
                        const Value* added, Value* out, int64_t outputs, int64_t count, Ahead& ahead) {
  const int64_t width = std::min<int64_t>(count, kVectors * kPointwiseLanes);
  int64_t p = 0;
  for (; p + kRows <= pixels; p += kRows) {
    const int64_t at = p * outputs;
    ahead.ask();
    expect(out + at, kRows, outputs, width);
    rows<kRows, kVectors, kAdds>(x + p * step, step, channels, weight, bias, added + at, out + at, outputs,
                                 count);
  }
  for (; p < pixels; ++p) {
    const int64_t at = p * outputs;
    rows<1, kVectors, kAdds>(x + p * step, step, channels, weight, bias, added + at, out + at, outputs,
                             count);
  }
}

// A block of pixels, from `begin` of a picture on, whose channels are at x.
template <bool kAdds, typename Value>
AICR_TARGET void multiply(const Value* x, int64_t step, int64_t pixels, int64_t channels,
                          const PointwiseProduct<Value>& product, int64_t picture, int64_t begin,
                          Ahead& ahead) {
  const int64_t N = product.outputs, vectors = vectors_of(N);
  Value* out = product.at(picture, begin);
  const Value* added = kAdds ? product.added + picture * product.added_picture_step + begin * N : out;
  const auto* weight = product.weight;
  for (int64_t v = 0, n = 0; v < vectors; v += n) {
    n = column_vectors(vectors - v);
    const int64_t at = v * kPointwiseLanes, left = N - at;
    const float* bias = product.bias + at;
    const Value* plus = added + at;
    Value* to = out + at;
    if (n == 4) column<6, 4, kAdds>(x, step, pixels, channels, weight, bias, plus, to, N, left, ahead);
    if (n == 3) column<8, 3, kAdds>(x, step, pixels, channels, weight, bias, plus, to, N, left, ahead);
    if (n == 2) column<12, 2, kAdds>(x, step, pixels, channels, weight, bias, plus, to, N, left, ahead);
    if (n == 1) column<12, 1, kAdds>(x, step, pixels, channels, weight, bias, plus, to, N, left, ahead);
    weight += steps_of<Value>(channels) * n * kPointwiseLanes;
  }
}

// The norm of dense pixels. `scales` are its weights and then its biases, arranged. kOne: one pair of vectors
// has all channels.
template <bool kOne, typename Value>
AICR_TARGET_INLINE void normalise(const PointwiseTask<Value>& task, const Value* x, const float* scales,
                                  int64_t pixels, const ChannelVectors<kLine>& vectors, Value* out) {
  using Element = ElementOf<Value>;
  const PixelGroups<kLine, kOne, Pair<kLine, std::is_same_v<Element, BFloat16>>, Element> groups{
      reinterpret_cast<const Element*>(x),
      reinterpret_cast<Element*>(out),
      scales,
      scales + vectors.pairs() * vectors.kValues,
      pixels,
      task.eps,
      vectors};
  if (task.subtract_mean) {
    groups.template normalise<true>();
  } else {
    groups.template normalise<false>();
  }
}

// The next block of a picture, whose channels, and what is added to whose products, are read next.
template <typename Value>
Ahead next_block(const PointwiseTask<Value>& task, int64_t picture, int64_t begin) {
  const int64_t block = task.block(), from = begin + block, pixels = std::min(block, task.pixels - from);
  if (pixels <= 0) return {};
  int64_t columns = 0;
  for (int i = 0; i < task.count; ++i) {
    columns += (vectors_of(task.products[i].outputs) + kMostVectors - 1) / kMostVectors;
  }
  const int64_t tiles = std::max<int64_t>(1, columns * (block / 8));  // about
  const auto range = [tiles](const Value* at, int64_t values) {
    const auto* first = reinterpret_cast<const char*>(at);
    const int64_t bytes = values * static_cast<int64_t>(sizeof(Value));
    return Ahead::Range{first, first + bytes, (bytes / tiles + kLine) / kLine * kLine};
  };
  Ahead ahead;
  ahead.ranges[0] =
      range(task.x + picture * task.picture_step + from * task.pixel_step, pixels * task.pixel_step);
  const PointwiseProduct<Value>& product = task.products[0];
  if (product.added != nullptr && product.added != product.out) {
    ahead.ranges[1] = range(product.added + picture * product.added_picture_step + from * product.outputs,
                            pixels * product.outputs);
  }
  return ahead;
}

template <typename Value>
AICR_TARGET void normed_pieces(const PointwiseTask<Value>& task, int64_t first, int64_t last) {
  const int64_t C = task.channels, block = task.block(), blocks = task.blocks();
  const ElementOf<Value>* type = nullptr;
  const ChannelVectors<kLine> vectors(C, type);
  std::vector<float> scales(2 * vectors.pairs() * vectors.kValues);
  vectors.arrange(task.norm_weight, type, scales.data());
  vectors.arrange(task.norm_bias, type, scales.data() + scales.size() / 2);
  std::vector<Value> memory(block * C + kLine / static_cast<int64_t>(sizeof(Value)));
  Value* normed = aligned(memory);
  for (int64_t index = first; index < last; ++index) {
    const int64_t picture = index / blocks, begin = index % blocks * block;
    const int64_t pixels = std::min(block, task.pixels - begin);
    const Value* x = task.x + picture * task.picture_step + begin * task.pixel_step;
    Ahead ahead = next_block(task, picture, begin);
    if (C == ChannelVectors<kLine>::kValues) {
      normalise<true>(task, x, scales.data(), pixels, vectors, normed);
    } else {
      normalise<false>(task, x, scales.data(), pixels, vectors, normed);
    }
    for (int i = 0; i < task.count; ++i) {
      const PointwiseProduct<Value>& product = task.products[i];
      multiply<false>(normed, C, pixels, C, product, picture, begin, ahead);
    }
  }
}

}  // namespace

template <typename Value>
void pointwise_tiles_avx512(const PointwiseTask<Value>& task, int64_t first, int64_t last) {
  if (task.norm_weight != nullptr) {
    normed_pieces(task, first, last);
    return;
  }
  const int64_t block = task.block(), blocks = task.blocks();
  for (int64_t index = first; index < last; ++index) {
    const int64_t picture = index / blocks, begin = index % blocks * block;
    const int64_t pixels = std::min(block, task.pixels - begin);
    const Value* x = task.x + picture * task.picture_step + begin * task.pixel_step;
    Ahead ahead = next_block(task, picture, begin);
    for (int i = 0; i < task.count; ++i) {
      const PointwiseProduct<Value>& product = task.products[i];
      const auto run = product.added == nullptr ? multiply<false, Value> : multiply<true, Value>;
      run(x, task.pixel_step, pixels, task.channels, product, picture, begin, ahead);
    }
  }
}

template <typename Value>
int64_t pointwise_packed(int64_t channels, int64_t outputs) {
  return steps_of<Value>(channels) * vectors_of(outputs) * kPointwiseLanes;
}

template <typename Value>
void pack_pointwise(const Value* weight, int64_t channels, int64_t outputs,
                    typename PointwiseNumbers<Value>::Weight* packed) {
  constexpr int64_t kTogether = PointwiseNumbers<Value>::kTogether;
  const int64_t vectors = vectors_of(outputs);
  for (int64_t v = 0, n = 0; v < vectors; v += n) {
    n = column_vectors(vectors - v);
    const int64_t from = v * kPointwiseLanes, width = n * kPointwiseLanes;
    const int64_t count = std::min(width, outputs - from);
    for (int64_t c = 0; c < channels; c += kTogether, packed += width) {
      const Value* at = weight + from * channels + c;
      for (int64_t j = 0; j < count; ++j, at += channels) {
        if constexpr (kTogether == 1) {
          packed[j] = at[0];
        } else {
          packed[j] = at[0] | (c + 1 < channels ? static_cast<uint32_t>(at[1]) << 16 : 0);
        }
      }
      std::fill(packed + count, packed + width, 0);
    }
  }
}

bool has_pointwise_tiles(bool bfloat16) {
  static const bool products = has_avx512_bfloat16() && !has_amx_bfloat16();
  return bfloat16 ? products : has_avx512();
}

#else

namespace aicr {
template <typename Value>
void pointwise_tiles_avx512(const PointwiseTask<Value>&, int64_t, int64_t) {}
template <typename Value>
int64_t pointwise_packed(int64_t, int64_t) {
  return 0;
}
template <typename Value>
void pack_pointwise(const Value*, int64_t, int64_t, typename PointwiseNumbers<Value>::Weight*) {}
bool has_pointwise_tiles(bool) {
  return false;
}

#endif

#define AICR_INSTANTIATE(Value)                                                               \
  template void pointwise_tiles_avx512<Value>(const PointwiseTask<Value>&, int64_t, int64_t); \
  template int64_t pointwise_packed<Value>(int64_t, int64_t);                                 \
  template void pack_pointwise<Value>(const Value*, int64_t, int64_t, PointwiseNumbers<Value>::Weight*);
AICR_INSTANTIATE(uint16_t)
AICR_INSTANTIATE(float)
#undef AICR_INSTANTIATE

}  // namespace aicr
