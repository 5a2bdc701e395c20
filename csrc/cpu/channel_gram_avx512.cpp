// channel_gram of channels-last bfloat16 for AVX-512 with BF16: one instruction multiplies two pixels of 16
// keys by two of a query and adds both products, in float32.
//
// The two pixels of a channel have to lie beside one another, which is how a block is put into working
// memory. The squares are such products as well.
//
// Only functions with AICR_TARGET are compiled for that instruction set, because the linker may keep this
// file's copy of any function that other files use too.
#include "cpu/channel_gram_kernel.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// What gcc's own header leaves undefined on purpose, where a mask takes none of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "cpu/avx512.hpp"

#define AICR_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512bf16")))
#define AICR_TARGET_INLINE AICR_TARGET __attribute__((always_inline)) inline

namespace aicr {
namespace {

constexpr int64_t kBlock = 64;  // pixels

AICR_TARGET_INLINE __m512bh as_pairs(__m512i values) {
  return reinterpret_cast<__m512bh>(values);
}

// Channels of an even and an odd pixel, one after the other, by this place in both.
alignas(64) constexpr uint16_t kLow[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                           8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
alignas(64) constexpr uint16_t kHigh[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                                            24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};

// Pairs of the pixels of a block; squares += x^2. From the last channels to the first, because what the last
// vector has beyond them goes into the row of the next pair.
AICR_TARGET void pack(const uint16_t* from, int64_t step, int64_t count, int64_t channels, uint32_t* to,
                      int64_t to_step, float* squares) {
  const __m512i low = _mm512_load_si512(kLow), high = _mm512_load_si512(kHigh);
  for (int64_t c = (channels - 1) / 32 * 32; c >= 0; c -= 32) {
    const __mmask32 all = channels - c >= 32 ? ~__mmask32(0) : (__mmask32(1) << (channels - c)) - 1;
    __m512 first = _mm512_setzero_ps(), second = _mm512_setzero_ps();
    for (int64_t p = 0; p < count; p += 2) {
      const uint16_t* at = from + p * step + c;
      const __m512i even = _mm512_maskz_loadu_epi16(all, at);
      const __m512i odd = p + 1 < count ? _mm512_maskz_loadu_epi16(all, at + step) : _mm512_setzero_si512();
      const __m512i a = _mm512_permutex2var_epi16(even, low, odd),
                    b = _mm512_permutex2var_epi16(even, high, odd);
      uint32_t* pair = to + p / 2 * to_step + c;
      _mm512_storeu_si512(pair, a);
      _mm512_storeu_si512(pair + 16, b);
      first = _mm512_dpbf16_ps(first, as_pairs(a), as_pairs(a));
      second = _mm512_dpbf16_ps(second, as_pairs(b), as_pairs(b));
    }
    _mm512_storeu_ps(squares + c, _mm512_add_ps(_mm512_loadu_ps(squares + c), first));
    _mm512_storeu_ps(squares + c + 16, _mm512_add_ps(_mm512_loadu_ps(squares + c + 16), second));
  }
}

// 8 rows by N * 16 columns of scores.
template <int N>
AICR_TARGET void tile(const uint32_t* q, const uint32_t* k, int64_t step, int64_t pairs, float* scores,
                      int64_t columns) {
  constexpr int R = 8;
  __m512 sum[R][N];
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) sum[r][n] = _mm512_setzero_ps();
  }
  for (int64_t p = 0; p < pairs; ++p, q += step, k += step) {
    __m512bh key[N];
    for (int n = 0; n < N; ++n) key[n] = as_pairs(_mm512_loadu_si512(k + n * 16));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh query = as_pairs(_mm512_set1_epi32(static_cast<int>(q[r])));
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], query, key[n]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) {
      float* at = scores + r * columns + n * 16;
      _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), sum[r][n]));
    }
  }
}

// 8 rows by 8 columns. Even and odd pairs have sums of their own, because one sum would wait for the one
// before.
AICR_TARGET void small_tile(const uint32_t* q, const uint32_t* k, int64_t step, int64_t pairs,
                            float* scores) {
  constexpr int R = 8;
  __m256 sum[2][R];
  for (int r = 0; r < R; ++r) sum[0][r] = sum[1][r] = _mm256_setzero_ps();
  for (int64_t p = 0; p < pairs; p += 2, q += 2 * step, k += 2 * step) {
#pragma GCC unroll 2
    for (int u = 0; u < 2; ++u) {
      const auto key =
          reinterpret_cast<__m256bh>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(k + u * step)));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const auto query = reinterpret_cast<__m256bh>(_mm256_set1_epi32(static_cast<int>(q[u * step + r])));
        sum[u][r] = _mm256_dpbf16_ps(sum[u][r], query, key);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    float* at = scores + r * 8;
    _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), _mm256_add_ps(sum[0][r], sum[1][r])));
  }
}

AICR_TARGET void add_scores(const uint32_t* q, const uint32_t* k, int64_t step, int64_t pairs, int64_t depth,
                            const ChannelGramPlan& plan, float* scores) {
  if (plan.columns == 8) {
    small_tile(q, k, step, pairs, scores);
    return;
  }
  for (int64_t j = 0; j < plan.columns;) {
    const int64_t left = (plan.columns - j) / 16, n = left == 3 || left > 4 ? 3 : std::min<int64_t>(left, 2);
    for (int64_t i = 0; i < depth; i += 8) {
      float* at = scores + i * plan.columns + j;
      if (n == 3) tile<3>(q + i, k + j, step, pairs, at, plan.columns);
      if (n == 2) tile<2>(q + i, k + j, step, pairs, at, plan.columns);
      if (n == 1) tile<1>(q + i, k + j, step, pairs, at, plan.columns);
    }
    j += n * 16;
  }
}

}  // namespace

bool channel_gram_avx512(const ChannelGramShape& shape, const uint16_t* q, const uint16_t* k, float* parts,
                         int64_t first, int64_t last) {
  if (!has_avx512_bfloat16()) return false;
  const ChannelGramPlan plan(shape);
  const int64_t values = kBlock / 2 * plan.run + kChannelGramSlack;
  std::vector<uint32_t> memory(2 * values);
  uint32_t *of_q = memory.data(), *of_k = of_q + values;
  for (int64_t index = first; index < last; ++index) {
    const ChannelGramPiece piece(shape, plan, index);
    float* part = parts + index * plan.part();
    float *q_squares = part + plan.squares(), *k_squares = q_squares + plan.run;
    const uint16_t* from_q = q + piece.picture * shape.q.picture + piece.channel;
    const uint16_t* from_k = k + piece.picture * shape.k.picture + piece.channel;
    for (int64_t p = piece.begin; p < piece.end; p += kBlock) {
      const int64_t count = std::min(kBlock, piece.end - p), pairs = (count + 1) / 2;
      pack(from_q + p * shape.q.step, shape.q.step, count, piece.channels, of_q, plan.run, q_squares);
      pack(from_k + p * shape.k.step, shape.k.step, count, piece.channels, of_k, plan.run, k_squares);
      if (pairs % 2 != 0) {  // small tiles take two at a time
        std::fill_n(of_q + pairs * plan.run, plan.run, 0);
        std::fill_n(of_k + pairs * plan.run, plan.run, 0);
      }
      for (int64_t g = 0; g < piece.groups; ++g) {
        add_scores(of_q + g * shape.depth, of_k + g * shape.depth, plan.run, pairs, shape.depth, plan,
                   part + g * plan.group_scores());
      }
    }
  }
  return true;
}

}  // namespace aicr

#else

namespace aicr {
bool channel_gram_avx512(const ChannelGramShape&, const uint16_t*, const uint16_t*, float*, int64_t,
                         int64_t) {
  return false;
}
}  // namespace aicr

#endif
