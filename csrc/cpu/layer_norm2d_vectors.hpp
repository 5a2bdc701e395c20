// layer_norm2d of channels-last pixels, as many at a time as a vector has lanes: each sums its channels lane
// by lane, and the sums of all pixels form in one vector. Their values stay in the first cache, and are
// converted anew for mean, variance and result, which costs less than to keep them. Weights and bias are read
// once per group of pixels. The steps of a group wait for one another: of short pixels, three groups are at
// different steps at a time.
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

// The steps by which groups of pixels are normalised. Values: Pair<kBytes> or what rounds as it does. kOne:
// one pair has all channels.
template <int kBytes, bool kOne, typename Values, typename T>
struct PixelGroups {
  using V = Vectors<kBytes>;
  using Float = typename V::Float;
  using Pixels = float[V::kLanes];
  static constexpr int64_t kLanes = V::kLanes, kValues = Values::kValues;
  // Bytes. Of longer ones, three groups at a time are slower where maps come from memory.
  static constexpr int64_t kShortPixel = 64;

  const T* x;
  T* out;
  const float *weight, *bias;  // arranged
  int64_t pixels;
  float eps;
  const ChannelVectors<kBytes>& vectors;

  AICR_INLINE int64_t channels() const { return kOne ? kValues : vectors.channels; }
  AICR_INLINE int64_t groups() const { return (pixels + kLanes - 1) / kLanes; }
  AICR_INLINE int64_t count(int64_t group) const { return std::min(kLanes, pixels - group * kLanes); }

  // lanes = the sum over channels of step(x), lane by lane, of one pixel
  template <typename Step>
  AICR_INLINE void sum_channels(const T* at, const Step& step, Float& lanes) const {
    Float first = {}, second = {};
    Values pair;
    for (int64_t n = 0; n < (kOne ? 1 : vectors.whole); ++n) {
      pair.load(at + n * kValues);
      step(pair.first);
      step(pair.second);
      first += pair.first;
      second += pair.second;
    }
    if (!kOne && vectors.ragged) {
      pair.load(at + vectors.channels - kValues);
      step(pair.first);
      step(pair.second);
      first += same_bits<Float>(same_bits<typename V::Int>(pair.first) & vectors.fresh[0]);
      second += same_bits<Float>(same_bits<typename V::Int>(pair.second) & vectors.fresh[1]);
    }
    lanes = first + second;
  }

  AICR_INLINE void put_means(int64_t group, Pixels& mean) const {
    const T* at = x + group * kLanes * channels();
    Float parts[kLanes], sums;
    for (int64_t p = 0; p < count(group); ++p) {
      sum_channels(at + p * channels(), [](Float&) AICR_INLINE_LAMBDA {}, parts[p]);
    }
    for (int64_t p = count(group); p < kLanes; ++p) parts[p] = Float{};
    sum_each<kBytes>(parts, sums);
    sums /= static_cast<float>(channels());
    __builtin_memcpy(mean, &sums, sizeof mean);
  }

  // r = 1 / sqrt(var + eps)
  AICR_INLINE void put_factors(int64_t group, const Pixels& mean, Pixels& r) const {
    const T* at = x + group * kLanes * channels();
    Float parts[kLanes], sums;
    for (int64_t p = 0; p < count(group); ++p) {
      const float m = mean[p];
      sum_channels(
          at + p * channels(),
          [m](Float& value) AICR_INLINE_LAMBDA {
            value -= m;
            value *= value;
          },
          parts[p]);
    }
    for (int64_t p = count(group); p < kLanes; ++p) parts[p] = Float{};
    sum_each<kBytes>(parts, sums);
    sums = sums / static_cast<float>(channels()) + eps;
    __builtin_memcpy(r, &sums, sizeof r);
    for (int64_t p = 0; p < kLanes; ++p) r[p] = 1 / std::sqrt(r[p]);
  }

  template <bool kSubtract>
  AICR_INLINE void put_results(int64_t group, const Pixels& mean, const Pixels& r) const {
    for (int64_t n = 0; n < (kOne ? 1 : vectors.pairs()); ++n) {
      Values pair, w, b;
      w.load(weight + n * kValues);
      b.load(bias + n * kValues);
      const int64_t at = group * kLanes * channels() + (kOne ? 0 : vectors.begin(n));
      for (int64_t p = 0; p < count(group); ++p) {
        const float shift = kSubtract ? mean[p] : 0, factor = r[p];
        pair.load(x + at + p * channels());
        if (kSubtract) {
          pair.first -= shift;
          pair.second -= shift;
        }
        pair.first = pair.first * factor * w.first + b.first;
        pair.second = pair.second * factor * w.second + b.second;
        pair.store(out + at + p * channels());
      }
    }
  }

  template <bool kSubtract>
  AICR_INLINE void normalise() const {
    Pixels mean[3], r[3];  // of group g in place g mod 3
    const int64_t lag = channels() * static_cast<int64_t>(sizeof(T)) <= kShortPixel ? 1 : 0;
    for (int64_t g = 0; g < groups() + 2 * lag; ++g) {
      const int64_t second = g - lag, third = second - lag;
      if (g < groups()) put_means(g, mean[g % 3]);
      if (second >= 0 && second < groups()) put_factors(second, mean[second % 3], r[second % 3]);
      if (third >= 0) put_results<kSubtract>(third, mean[third % 3], r[third % 3]);
    }
  }
};

}  // namespace aicr
