// Vectors of channels for depthwise_conv3x3_avx512.cpp: how values are loaded, multiplied by the terms of a
// convolution, and stored.
//
// Only functions with AICR_TARGET are compiled for that instruction set, because the linker may keep this
// file's copy of any function that other files use too. Where the processor has no BF16, no function with its
// instructions is called.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// What gcc's own header leaves undefined on purpose, where a mask takes none of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/gated_depthwise_conv3x3_kernel.hpp"
#include "cpu/same_bits.hpp"

#define AICR_TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16")))
#define AICR_TARGET_LAMBDA AICR_TARGET __attribute__((always_inline))
#define AICR_TARGET_INLINE AICR_TARGET __attribute__((always_inline)) inline

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// 64 bytes, read once: compilers would read them from memory again for every use, and where they cross the
// lines of the cache each time costs two loads.
AICR_TARGET_INLINE __m512i loaded(const void* from) {
  __m512i values = _mm512_loadu_si512(from);
  asm("" : "+v"(values));
  return values;
}

// 16 channels of float, or of a type that one instruction makes floats of.
template <typename Type>
struct FloatLanes {
  using T = Type;
  static constexpr int64_t kValues = 16;
  using Sums = __m512;
  struct Column {
    __m512 above, row, below;
  };
  struct Weights {
    __m512 above[3], row[3], below[3], bias;
  };
  static constexpr int64_t kTerms = kDepthwiseTerms * kValues;

  // terms: of the first channel.
  static void arrange(const float* terms, int64_t channels, float* to) {
    for (int64_t t = 0; t < kDepthwiseTerms; ++t)
      std::copy_n(terms + t * channels, kValues, to + t * kValues);
  }
  static AICR_TARGET_INLINE Weights weights(const float* terms) {
    const auto at = [terms](int64_t t) AICR_TARGET_LAMBDA { return _mm512_loadu_ps(terms + t * kValues); };
    return {{at(0), at(1), at(2)}, {at(3), at(4), at(5)}, {at(6), at(7), at(8)}, at(kDepthwiseTaps)};
  }

  static AICR_TARGET_INLINE Column load(const T* above, const T* row, const T* below) {
    return {value(above), value(row), value(below)};
  }
  static AICR_TARGET_INLINE Sums add(Sums sums, const Column& column, const Weights& w, int k) {
    sums = _mm512_fmadd_ps(column.above, w.above[k], sums);
    sums = _mm512_fmadd_ps(column.row, w.row[k], sums);
    return _mm512_fmadd_ps(column.below, w.below[k], sums);
  }
  static AICR_TARGET_INLINE Sums times(Sums sums, const float* factors) {
    return _mm512_mul_ps(sums, _mm512_loadu_ps(factors));
  }
  static AICR_TARGET_INLINE void keep(Sums sums, float* to) { _mm512_storeu_ps(to, sums); }
  static AICR_TARGET_INLINE void store(Sums sums, float* to) { _mm512_storeu_ps(to, sums); }
  static AICR_TARGET_INLINE void store(Sums sums, Half* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(sums, _MM_FROUND_TO_NEAREST_INT));
  }

 private:
  static AICR_TARGET_INLINE __m512 value(const float* from) { return _mm512_castsi512_ps(loaded(from)); }
  static AICR_TARGET_INLINE __m512 value(const Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
};

// 32 channels of bfloat16: of every eight the first four in one vector, the others in a second, as
// instructions that put two registers together have them.
struct Bfloat16Sums {
  __m512 low, high;
};

template <bool kInstructions>
struct Bfloat16Vectors {
  using T = BFloat16;
  static constexpr int64_t kValues = 32;
  using Sums = Bfloat16Sums;

  // terms: of the first channel; of a tap or the bias, in the order of the vectors.
  static void order(const float* terms, float* to) {
    for (int64_t i = 0; i < kValues; ++i) to[i / 4 % 2 * 16 + i / 8 * 4 + i % 4] = terms[i];
  }
  static AICR_TARGET_INLINE Sums floats(const float* terms) {
    return {_mm512_loadu_ps(terms), _mm512_loadu_ps(terms + 16)};
  }

  static AICR_TARGET_INLINE Sums widened(__m512i values) {
    const __m512i zeros = _mm512_setzero_si512();
    return {_mm512_castsi512_ps(_mm512_unpacklo_epi16(zeros, values)),
            _mm512_castsi512_ps(_mm512_unpackhi_epi16(zeros, values))};
  }
  static AICR_TARGET_INLINE Sums multiply_add(const Sums& values, const Sums& weights, const Sums& sums) {
    return {_mm512_fmadd_ps(values.low, weights.low, sums.low),
            _mm512_fmadd_ps(values.high, weights.high, sums.high)};
  }
  static AICR_TARGET_INLINE Sums times(const Sums& sums, const float* factors) {
    return {_mm512_mul_ps(sums.low, _mm512_loadu_ps(factors)),
            _mm512_mul_ps(sums.high, _mm512_loadu_ps(factors + 16))};
  }
  static AICR_TARGET_INLINE void keep(const Sums& sums, float* to) {
    _mm512_storeu_ps(to, sums.low);
    _mm512_storeu_ps(to + 16, sums.high);
  }
  static AICR_TARGET_INLINE void store(const Sums& sums, BFloat16* to) {
    __m512i rounded;
    if constexpr (kInstructions) {
      const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
      const __m512bh both = _mm512_cvtne2ps_pbh(sums.high, sums.low);
      rounded = _mm512_permutexvar_epi64(order, reinterpret_cast<__m512i>(both));
    } else {
      rounded = _mm512_packus_epi32(upper_half(sums.low), upper_half(sums.high));
    }
    _mm512_storeu_si512(to, rounded);
  }

 private:
  // Rounded to the nearest bfloat16, of two as near to the even one; not-a-number stays one.
  static AICR_TARGET_INLINE __m512i upper_half(__m512 value) {
    const __m512i bits = _mm512_castps_si512(value), odd = _mm512_srli_epi32(bits, 16);
    const __m512i half =
        _mm512_add_epi32(_mm512_and_si512(odd, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(_mm512_srli_epi32(_mm512_add_epi32(bits, half), 16), nan,
                                 _mm512_set1_epi32(0x7fc0));
  }
};

// The two rows above, interleaved, are multiplied and added by one instruction: for weights that are
// bfloat16, too.
struct PairLanes : Bfloat16Vectors<true> {
  struct Column {
    __m512i low_pairs, high_pairs;
    Sums below;
  };
  struct Weights {
    __m512i low_pairs[3], high_pairs[3];
    Sums below[3], bias;
  };
  static constexpr int64_t kTerms = (3 + 3 + 1) * kValues;

  static void arrange(const float* terms, int64_t channels, float* to) {
    float above[kValues], row[kValues];
    for (int64_t k = 0; k < 3; ++k, to += kValues) {
      order(terms + k * channels, above);
      order(terms + (3 + k) * channels, row);
      for (int64_t i = 0; i < kValues; ++i) {
        to[i] = same_bits<float>(same_bits<uint32_t>(above[i]) >> 16 | same_bits<uint32_t>(row[i]));
      }
    }
    for (int64_t t = 6; t < kDepthwiseTerms; ++t, to += kValues) order(terms + t * channels, to);
  }
  static AICR_TARGET_INLINE Weights weights(const float* terms) {
    const auto low = [terms](int k) AICR_TARGET_LAMBDA { return _mm512_loadu_si512(terms + k * kValues); };
    const auto high = [terms](int k)
                          AICR_TARGET_LAMBDA { return _mm512_loadu_si512(terms + k * kValues + 16); };
    const auto below = [terms](int k) AICR_TARGET_LAMBDA { return floats(terms + (3 + k) * kValues); };
    return {{low(0), low(1), low(2)}, {high(0), high(1), high(2)}, {below(0), below(1), below(2)}, below(3)};
  }

  static AICR_TARGET_INLINE Column load(const T* above, const T* row, const T* below) {
    const __m512i first = loaded(above), second = loaded(row);
    return {_mm512_unpacklo_epi16(first, second), _mm512_unpackhi_epi16(first, second),
            widened(loaded(below))};
  }
  static AICR_TARGET_INLINE Sums add(const Sums& sums, const Column& column, const Weights& w, int k) {
    const Sums both = {_mm512_dpbf16_ps(sums.low, pairs(column.low_pairs), pairs(w.low_pairs[k])),
                       _mm512_dpbf16_ps(sums.high, pairs(column.high_pairs), pairs(w.high_pairs[k]))};
    return multiply_add(column.below, w.below[k], both);
  }

 private:
  static AICR_TARGET_INLINE __m512bh pairs(__m512i values) { return reinterpret_cast<__m512bh>(values); }
};

// For weights of float32. kInstructions: to round with.
template <bool kInstructions>
struct WideLanes : Bfloat16Vectors<kInstructions> {
  using Base = Bfloat16Vectors<kInstructions>;
  using Sums = Bfloat16Sums;
  struct Column {
    __m512i above, row, below;
  };
  struct Weights {
    Sums above[3], row[3], below[3], bias;
  };
  static constexpr int64_t kTerms = kDepthwiseTerms * Base::kValues;

  static void arrange(const float* terms, int64_t channels, float* to) {
    for (int64_t t = 0; t < kDepthwiseTerms; ++t) Base::order(terms + t * channels, to + t * Base::kValues);
  }
  static AICR_TARGET_INLINE Weights weights(const float* terms) {
    const auto at = [terms](int64_t t) AICR_TARGET_LAMBDA { return Base::floats(terms + t * Base::kValues); };
    return {{at(0), at(1), at(2)}, {at(3), at(4), at(5)}, {at(6), at(7), at(8)}, at(kDepthwiseTaps)};
  }

  static AICR_TARGET_INLINE Column load(const BFloat16* above, const BFloat16* row, const BFloat16* below) {
    return {loaded(above), loaded(row), loaded(below)};
  }
  static AICR_TARGET_INLINE Sums add(Sums sums, const Column& column, const Weights& w, int k) {
    sums = Base::multiply_add(Base::widened(column.above), w.above[k], sums);
    sums = Base::multiply_add(Base::widened(column.row), w.row[k], sums);
    return Base::multiply_add(Base::widened(column.below), w.below[k], sums);
  }
};

}  // namespace
}  // namespace aicr
