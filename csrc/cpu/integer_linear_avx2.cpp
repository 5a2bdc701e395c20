// integer_linear for AVX2: one instruction multiplies two inputs by their weights for 8 outputs and adds both
// products, a second one adds them to the sums.
//
// Only functions with AICR_TARGET are compiled for that instruction set, because the linker may keep this
// file's copy of any function that other files use too.
#include "cpu/integer_linear_kernel.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#define AICR_TARGET __attribute__((target("avx2")))
#define AICR_TARGET_INLINE AICR_TARGET __attribute__((always_inline)) inline

namespace aicr {
namespace {

constexpr int kLanes = 8;

AICR_TARGET_INLINE __m256i load(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

// 32-bit lanes shifted as `shifted` does, in either direction.
AICR_TARGET_INLINE __m256i shift_lanes(__m256i value, __m256i shift) {
  const __m256i zero = _mm256_setzero_si256(), right = _mm256_max_epi32(shift, zero);
  const __m256i left = _mm256_max_epi32(_mm256_sub_epi32(zero, shift), zero);
  const __m256i half = _mm256_srli_epi32(_mm256_sllv_epi32(_mm256_set1_epi32(1), right), 1);
  return _mm256_srav_epi32(_mm256_add_epi32(_mm256_sllv_epi32(value, left), half), right);
}

AICR_TARGET_INLINE __m256i saturate(__m256i value) {
  return _mm256_max_epi32(_mm256_min_epi32(value, _mm256_set1_epi32(kIntegerLimit)),
                          _mm256_set1_epi32(-kIntegerLimit));
}

AICR_TARGET_INLINE void finish(const IntegerLinear& task, int64_t row, int64_t output, __m256i sum) {
  __m256i value = saturate(shift_lanes(sum, load(task.shift + output)));
  const __m256i leaky =
      shift_lanes(_mm256_mullo_epi32(value, load(task.slope + output)), _mm256_set1_epi32(15));
  value = _mm256_blendv_epi8(value, leaky, _mm256_srai_epi32(value, 31));
  const int64_t at = row * task.outputs + output;
  if (task.residual != nullptr) {
    const __m256i residual =
        _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(task.residual + at)));
    value = saturate(_mm256_add_epi32(value, shift_lanes(residual, load(task.residual_shift + output))));
  }
  const __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(task.out + at), packed);
}

// kRows rows times kVectors * 8 outputs, whose sums stay in registers: for that gcc has to be told to unroll.
template <int kRows, int kVectors>
AICR_TARGET void tile(const IntegerLinear& task, int64_t row, int64_t output) {
  __m256i sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const __m256i bias = load(task.bias + output + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r][v] = bias;
  }
  const int16_t* x = task.x + row * task.inputs;
  const int16_t* weight = task.weight + output * 2;
  for (int64_t k = 0; k < task.inputs; k += 2, weight += task.outputs * 2) {
    __m256i w[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) w[v] = load(weight + v * kLanes * 2);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * task.inputs + k, sizeof pair);
      const __m256i both = _mm256_set1_epi32(pair);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = _mm256_add_epi32(sum[r][v], _mm256_madd_epi16(w[v], both));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) finish(task, row + r, output + v * kLanes, sum[r][v]);
  }
}

template <int kVectors>
AICR_TARGET void column(const IntegerLinear& task, int64_t first, int64_t last, int64_t output) {
  constexpr int kRows = 6;
  int64_t row = first;
  for (; row + kRows <= last; row += kRows) tile<kRows, kVectors>(task, row, output);
  for (; row < last; ++row) tile<1, kVectors>(task, row, output);
}

}  // namespace

AICR_TARGET int64_t integer_linear_avx2(const IntegerLinear& task, int64_t first, int64_t last) {
  int64_t output = 0;
  for (; output + 2 * kLanes <= task.outputs; output += 2 * kLanes) column<2>(task, first, last, output);
  for (; output + kLanes <= task.outputs; output += kLanes) column<1>(task, first, last, output);
  return output;
}

}  // namespace aicr

#else

namespace aicr {
int64_t integer_linear_avx2(const IntegerLinear&, int64_t, int64_t) {
  return 0;
}
}  // namespace aicr

#endif
