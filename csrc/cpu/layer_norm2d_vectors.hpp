// layer_norm2d of channels-last pixels, as many at a time as a vector has lanes: each sums its channels lane
// by lane, and the sums of all pixels form in one vector. Their values stay in the first cache, and are
// converted anew for mean, variance and result, which costs less than to keep them. Weights and bias are read
// once per group of pixels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/same_bits.hpp"
#include "cpu/vector_sums.hpp"
#include "cpu/vectors.hpp"

namespace aicr {

// How the channels of a pixel fall into pairs of vectors. The last begins so early that it is full, and
// `fresh` are its values that no other has.
template <int kBytes>
struct ChannelVectors {
  using V = Vectors<kBytes>;
  static constexpr int64_t kValues = Pair<kBytes>::kValues;
  int64_t channels, whole;
  bool ragged;
  typename V::Int fresh[2];

  template <typename T>
  AICR_INLINE ChannelVectors(int64_t count, const T* type)
      : channels(count), whole(count / kValues), ragged(count % kValues != 0) {
    int32_t masks[kValues];
    for (int64_t i = 0; i < kValues; ++i) {
      masks[Pair<kBytes>::place(type, i)] = i < kValues - count % kValues ? 0 : -1;
    }
    __builtin_memcpy(fresh, masks, sizeof fresh);
  }

  AICR_INLINE int64_t pairs() const { return whole + ragged; }
  AICR_INLINE int64_t begin(int64_t pair) const { return std::min(pair * kValues, channels - kValues); }

  // One value per channel, as the loops read them.
  template <typename T>
  AICR_INLINE void arrange(const float* from, const T* type, float* to) const {
    for (int64_t pair = 0; pair < pairs(); ++pair) {
      for (int64_t i = 0; i < kValues; ++i) {
        to[pair * kValues + Pair<kBytes>::place(type, i)] = from[begin(pair) + i];
      }
    }
  }
};

// sums[lane] = the sum over channels of step(x), lane by lane, of one pixel
template <int kBytes, typename T, typename Step>
AICR_INLINE void sum_channels(const T* x, const ChannelVectors<kBytes>& vectors, const Step& step,
                              typename Vectors<kBytes>::Float& sums) {
  using V = Vectors<kBytes>;
  typename V::Float first = {}, second = {};
  Pair<kBytes> pair;
  for (int64_t n = 0; n < vectors.whole; ++n) {
    pair.load(x + n * pair.kValues);
    step(pair.first);
    step(pair.second);
    first += pair.first;
    second += pair.second;
  }
  if (vectors.ragged) {
    pair.load(x + vectors.channels - pair.kValues);
    step(pair.first);
    step(pair.second);
    first += same_bits<typename V::Float>(same_bits<typename V::Int>(pair.first) & vectors.fresh[0]);
    second += same_bits<typename V::Float>(same_bits<typename V::Int>(pair.second) & vectors.fresh[1]);
  }
  sums = first + second;
}

// At most as many pixels as a vector has lanes. weight, bias: arranged.
template <int kBytes, bool kSubtract, typename T>
AICR_INLINE void normalise_pixels(const T* __restrict__ x, const float* __restrict__ weight,
                                  const float* __restrict__ bias, T* __restrict__ out, int64_t count,
                                  float eps, const ChannelVectors<kBytes>& vectors) {
  using V = Vectors<kBytes>;
  using Float = typename V::Float;
  const int64_t C = vectors.channels;
  Float parts[V::kLanes] = {}, sums;
  float mean[V::kLanes], r[V::kLanes];
  for (int64_t p = 0; p < count; ++p) {
    sum_channels<kBytes>(x + p * C, vectors, [](Float&) AICR_INLINE_LAMBDA {}, parts[p]);
  }
  sum_each<kBytes>(parts, sums);
  sums /= static_cast<float>(C);
  __builtin_memcpy(mean, &sums, sizeof mean);
  for (int64_t p = 0; p < count; ++p) {
    const float m = mean[p];
    sum_channels<kBytes>(
        x + p * C, vectors,
        [m](Float& value) AICR_INLINE_LAMBDA {
          value -= m;
          value *= value;
        },
        parts[p]);
  }
  sum_each<kBytes>(parts, sums);
  sums = sums / static_cast<float>(C) + eps;
  __builtin_memcpy(r, &sums, sizeof r);
  for (int64_t p = 0; p < V::kLanes; ++p) r[p] = 1 / std::sqrt(r[p]);
  for (int64_t n = 0; n < vectors.pairs(); ++n) {
    Pair<kBytes> pair, w, b;
    w.load(weight + n * pair.kValues);
    b.load(bias + n * pair.kValues);
    const int64_t at = vectors.begin(n);
    for (int64_t p = 0; p < count; ++p) {
      const float shift = kSubtract ? mean[p] : 0, factor = r[p];
      pair.load(x + p * C + at);
      if (kSubtract) {
        pair.first -= shift;
        pair.second -= shift;
      }
      pair.first = pair.first * factor * w.first + b.first;
      pair.second = pair.second * factor * w.second + b.second;
      pair.store(out + p * C + at);
    }
  }
}

}  // namespace aicr
