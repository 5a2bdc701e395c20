// integer_linear for AVX-512 with VNNI: one instruction multiplies two inputs by their weights for 16 outputs
// and adds both products.
//
// Only functions with AICR_TARGET are compiled for that instruction set, because the linker may keep this
// file's copy of any function that other files use too.
#include "cpu/integer_linear_kernel.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// What gcc's own header leaves undefined on purpose, where a mask takes none of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstring>

#define AICR_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))
#define AICR_TARGET_INLINE AICR_TARGET __attribute__((always_inline)) inline

namespace aicr {
namespace {

constexpr int kLanes = 16;

AICR_TARGET_INLINE __m512i load(const int32_t* at) {
  return _mm512_loadu_si512(at);
}

// 32-bit lanes shifted as `shifted` does, in either direction.
AICR_TARGET_INLINE __m512i shift_lanes(__m512i value, __m512i shift) {
  const __m512i zero = _mm512_setzero_si512(), right = _mm512_max_epi32(shift, zero);
  const __m512i left = _mm512_max_epi32(_mm512_sub_epi32(zero, shift), zero);
  const __m512i half = _mm512_srli_epi32(_mm512_sllv_epi32(_mm512_set1_epi32(1), right), 1);
  return _mm512_srav_epi32(_mm512_add_epi32(_mm512_sllv_epi32(value, left), half), right);
}

AICR_TARGET_INLINE __m512i saturate(__m512i value) {
  return _mm512_max_epi32(_mm512_min_epi32(value, _mm512_set1_epi32(kIntegerLimit)),
                          _mm512_set1_epi32(-kIntegerLimit));
}

AICR_TARGET_INLINE void finish(const IntegerLinear& task, int64_t row, int64_t output, __m512i sum) {
  __m512i value = saturate(shift_lanes(sum, load(task.shift + output)));
  const __m512i leaky =
      shift_lanes(_mm512_mullo_epi32(value, load(task.slope + output)), _mm512_set1_epi32(15));
  value = _mm512_mask_mov_epi32(value, _mm512_cmplt_epi32_mask(value, _mm512_setzero_si512()), leaky);
  const int64_t at = row * task.outputs + output;
  if (task.residual != nullptr) {
    const __m512i residual =
        _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(task.residual + at)));
    value = saturate(_mm512_add_epi32(value, shift_lanes(residual, load(task.residual_shift + output))));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(task.out + at), _mm512_cvtepi32_epi16(value));
}

// As _mm512_dpwssd_epi32, with which gcc copies every sum to the stack and back in the loop of a tile.
AICR_TARGET_INLINE void add_products(__m512i& sum, __m512i weights, __m512i inputs) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
}

// kRows rows times kVectors * 16 outputs, whose sums stay in registers: for that gcc has to be told to
// unroll.
template <int kRows, int kVectors>
AICR_TARGET void tile(const IntegerLinear& task, int64_t row, int64_t output) {
  __m512i sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const __m512i bias = load(task.bias + output + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r][v] = bias;
  }
  const int16_t* x = task.x + row * task.inputs;
  const int16_t* weight = task.weight + output * 2;
  for (int64_t k = 0; k < task.inputs; k += 2, weight += task.outputs * 2) {
    __m512i w[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) w[v] = _mm512_loadu_si512(weight + v * kLanes * 2);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * task.inputs + k, sizeof pair);
      const __m512i both = _mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) add_products(sum[r][v], w[v], both);
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

AICR_TARGET int64_t integer_linear_avx512(const IntegerLinear& task, int64_t first, int64_t last) {
  int64_t output = 0;
  for (; output + 4 * kLanes <= task.outputs; output += 4 * kLanes) column<4>(task, first, last, output);
  for (; output + kLanes <= task.outputs; output += kLanes) column<1>(task, first, last, output);
  return output;
}

}  // namespace aicr

#else

namespace aicr {
int64_t integer_linear_avx512(const IntegerLinear&, int64_t, int64_t) {
  return 0;
}
}  // namespace aicr

#endif
