// What the kernels for AVX2 and AVX-512 share. All of it is inside the file that includes it.
//
// Only functions with AICR_AVX2 or AICR_AVX512 are compiled for those instruction sets, because the linker
// may keep any file's copy of a function that several use. For the same reason there are no lambdas in
// kernels.
#pragma once

#include <immintrin.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/crc32c.hpp"
#include "common/rans_kernels.hpp"

#define AICR_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define AICR_AVX2_INLINE AICR_AVX2 __attribute__((always_inline)) inline
#define AICR_AVX512 \
  __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")))
#define AICR_AVX512_INLINE AICR_AVX512 __attribute__((always_inline)) inline

namespace aicr {
namespace {

// Lanes go in registers of 8 states, also where there are longer ones: with four of them, each a chain of its
// own, less time passes between the steps of one.
constexpr int kRegister = 8;

// For each set of lanes, as a byte shuffle of eight words: which word of the stream each of them takes, and
// the inverse that puts their words at the end of a register in order.
struct WordShuffles {
  alignas(64) uint8_t spread[256][2 * kRegister];
  alignas(64) uint8_t gather[256][2 * kRegister];
};

constexpr WordShuffles make_word_shuffles() {
  constexpr uint8_t kZero = 0x80;
  WordShuffles made{};
  for (int set = 0; set < 256; ++set) {
    int members = 0, next = 0;
    for (int lane = 0; lane < kRegister; ++lane) members += set >> lane & 1;
    for (uint8_t& byte : made.spread[set]) byte = kZero;
    for (uint8_t& byte : made.gather[set]) byte = kZero;
    for (int lane = 0; lane < kRegister; ++lane) {
      if ((set >> lane & 1) == 0) continue;
      const int last = kRegister - members + next;
      for (int byte = 0; byte < 2; ++byte) {
        made.spread[set][2 * lane + byte] = static_cast<uint8_t>(2 * next + byte);
        made.gather[set][2 * last + byte] = static_cast<uint8_t>(2 * lane + byte);
      }
      ++next;
    }
  }
  return made;
}

constexpr WordShuffles kWordShuffles = make_word_shuffles();

AICR_AVX2_INLINE __m128i load_128(const void* at) {
  return _mm_loadu_si128(static_cast<const __m128i*>(at));
}

AICR_AVX2_INLINE __m256i load(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

AICR_AVX2_INLINE void store(void* at, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(at), value);
}

AICR_AVX2_INLINE bool all_zero(const uint8_t* bytes, size_t registers) {
  __m256i any = load(bytes);
  for (size_t k = 1; k < registers; ++k) any = _mm256_or_si256(any, load(bytes + 32 * k));
  return _mm256_testz_si256(any, any) != 0;
}

// Byte `round` of each 32 bits, times 2^bits; the rest is 0.
AICR_AVX2_INLINE __m256i byte_at(__m256i bytes, int round, int bits) {
  const int right = 8 * round - bits;
  return _mm256_and_si256(right < 0 ? _mm256_slli_epi32(bytes, -right) : _mm256_srli_epi32(bytes, right),
                          _mm256_set1_epi32(255 << bits));
}

// The entry's number out of the decoder's fields, in byte `round`; the rest is 0.
AICR_AVX2_INLINE __m256i entry_at(__m256i fields, int round) {
  const int right = kNumberAt - 8 * round;
  return _mm256_and_si256(right < 0 ? _mm256_slli_epi32(fields, -right) : _mm256_srli_epi32(fields, right),
                          _mm256_set1_epi32((kMaxEntries - 1) << (8 * round)));
}

// 8 entries of 64 bits, as their low and high halves. Loads one by one: gather instructions are slower than
// this on some processors, by a lot, and hardly faster on others.
AICR_AVX2_INLINE void look_up(const uint64_t* table, __m256i at, __m256i& low, __m256i& high) {
  const __m128i half[2] = {_mm256_castsi256_si128(at), _mm256_extracti128_si256(at, 1)};
  __m128i pair[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const auto two = static_cast<uint64_t>(k % 2 == 0 ? _mm_cvtsi128_si64(half[k / 2])
                                                      : _mm_extract_epi64(half[k / 2], 1));
    const __m128i first =
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(table + static_cast<uint32_t>(two)));
    pair[k] = _mm_castpd_si128(
        _mm_loadh_pd(_mm_castsi128_pd(first), reinterpret_cast<const double*>(table + (two >> 32))));
  }
  const __m256 even =
      _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(pair[0]), pair[2], 1));
  const __m256 odd =
      _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(pair[1]), pair[3], 1));
  low = _mm256_castps_si256(_mm256_shuffle_ps(even, odd, 0x88));
  high = _mm256_castps_si256(_mm256_shuffle_ps(even, odd, 0xdd));
}

// 8 entries of an encoder's table, of which each 32 bits go to a register of their own.
struct EncodeEntries {
  __m256i reciprocal;
  __m256i frequency;  // low half; high half: shift
  __m256i first_cell;
  __m256i cell_shift;  // low half; high half: last cell
};

AICR_AVX2_INLINE EncodeEntries look_up(const EncodeEntry* table, __m256i at) {
  alignas(32) uint32_t position[kRegister];
  _mm256_store_si256(reinterpret_cast<__m256i*>(position), at);
  // No state waits for this, so the detour through memory is better than the many instructions that take
  // numbers out of a register. Compilers think otherwise, unless they are told that the memory may have
  // changed.
  asm("" : "+m"(position));
  __m256i row[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    row[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(table + position[k])),
                                     load_128(table + position[k + 4]), 1);
  }
  const __m256i low_01 = _mm256_unpacklo_epi32(row[0], row[1]);
  const __m256i low_23 = _mm256_unpacklo_epi32(row[2], row[3]);
  const __m256i high_01 = _mm256_unpackhi_epi32(row[0], row[1]);
  const __m256i high_23 = _mm256_unpackhi_epi32(row[2], row[3]);
  return {_mm256_unpacklo_epi64(low_01, low_23), _mm256_unpackhi_epi64(low_01, low_23),
          _mm256_unpacklo_epi64(high_01, high_23), _mm256_unpackhi_epi64(high_01, high_23)};
}

// x / frequency. (x * reciprocal) >> 31 is the high half of a product with 2 * x.
AICR_AVX2_INLINE __m256i divide(__m256i x, const EncodeEntries& e) {
  const __m256i even = _mm256_mul_epu32(_mm256_add_epi32(x, x), e.reciprocal);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 31), _mm256_srli_epi64(e.reciprocal, 32));
  const __m256i product = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  return _mm256_srlv_epi32(product, _mm256_srli_epi32(e.frequency, 16));
}

// The cells of ranks, as their low and high halves.
AICR_AVX2_INLINE void look_up_cells(const Cell* cells, __m256i rank, const EncodeEntries& e, __m256i& low,
                                    __m256i& high) {
  const __m256i shift = _mm256_and_si256(e.cell_shift, _mm256_set1_epi32(0xffff));
  const __m256i cell = _mm256_min_epu32(_mm256_srlv_epi32(rank, shift), _mm256_srli_epi32(e.cell_shift, 16));
  look_up(cells, _mm256_add_epi32(e.first_cell, cell), low, high);
}

// The state with this quotient and the slot of this rank.
AICR_AVX2_INLINE __m256i new_state(__m256i quotient, __m256i rank, __m256i cell_low, __m256i cell_high) {
  // The last rank of the first run is the high half of the cell's low one. What lies below it changes
  // nothing.
  const __m256i second = _mm256_cmpgt_epi32(_mm256_slli_epi32(rank, 16), cell_low);
  const __m256i delta = _mm256_blendv_epi8(cell_low, cell_high, second);
  const __m256i slot =
      _mm256_and_si256(_mm256_add_epi32(rank, delta), _mm256_set1_epi32(kProbabilityOne - 1));
  return _mm256_or_si256(_mm256_slli_epi32(quotient, kProbabilityBits), slot);
}

// Takes a whole chunk into the checksum while another one's symbols are made, which hardly needs the integer
// units: its four quarters side by side, because each instruction waits for the one before it.
class ChunkChecksum {
 public:
  // Does nothing unless both are whole chunks: the one to be checked and that of the `count` symbols.
  AICR_AVX2_INLINE ChunkChecksum(const Unchecked& unchecked, size_t count)
      : whole_(unchecked.count == kChunk && count == kChunk),
        at_(reinterpret_cast<const uint8_t*>(unchecked.first)),
        strand_{static_cast<uint32_t>(~unchecked.crc), 0, 0, 0} {}

  // To be called with each kSymbols of the `count`.
  template <size_t kSymbols>
  AICR_AVX2_INLINE void step() {
    if (!whole_) return;
#pragma GCC unroll 4
    for (size_t i = 0; i < kSymbols / 16; ++i, at_ += 8) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        uint64_t four;
        __builtin_memcpy(&four, at_ + k * crc32c_detail::kStrand, 8);
        strand_[k] = _mm_crc32_u64(strand_[k], four);
      }
    }
  }

  // After the last of them.
  AICR_AVX2_INLINE void finish(Unchecked& unchecked) const {
    if (!whole_) return;
    uint64_t state = strand_[0];
    for (int k = 1; k < 4; ++k) state = crc32c_detail::skip_strand(state) ^ strand_[k];
    unchecked.crc = ~static_cast<uint32_t>(state);
    unchecked.count = 0;
  }

 private:
  static_assert(kChunk * sizeof(int16_t) == 4 * crc32c_detail::kStrand);
  bool whole_;
  const uint8_t* at_;
  uint64_t strand_[4];
};

// Raw bits lie in the stream as they do in bytes put side by side, less the bits that are not there: one PDEP
// makes eight symbols' bytes of them. False if there are not that many bits.
template <size_t kSymbols>
AICR_AVX2_INLINE bool read_raw(BitReader& raw, const uint64_t* masks, int64_t* numbers) {
  uint64_t position = raw.position();
#pragma GCC unroll 8
  for (size_t k = 0; k < kSymbols / 8; ++k) {
    numbers[k] = static_cast<int64_t>(_pdep_u64(raw.window(position), masks[k]));
    position += static_cast<uint64_t>(_mm_popcnt_u64(masks[k]));
  }
  const uint64_t taken = position - raw.position();
  if (!raw.has(taken)) return false;
  raw.skip(taken);
  return true;
}

// The reverse: PEXT.
template <size_t kSymbols>
AICR_AVX2_INLINE void write_raw(BitWriter::Cursor& raw, const uint64_t* masks, const uint64_t* numbers) {
#pragma GCC unroll 8
  for (size_t k = 0; k < kSymbols / 8; ++k) {
    raw.put(_pext_u64(numbers[k], masks[k]), static_cast<int>(_mm_popcnt_u64(masks[k])));
  }
}

}  // namespace
}  // namespace aicr
