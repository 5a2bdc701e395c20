// The coder's loops for AVX-512 (F, BW, DQ, VL, VBMI, VBMI2). 32 lanes are two registers of 16 states, which
// each round takes through the same steps side by side; 8 lanes are left to AVX2.
//
// Only functions with AICR_TARGET are compiled for that instruction set, because the linker may keep this
// file's copy of any function that other files use too. For the same reason there are no lambdas here.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// What gcc's own header leaves undefined on purpose, where a mask takes none of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>

#include "common/rans_kernels.hpp"
#include "cpu/rans_avx2.hpp"

#define AICR_TARGET \
  __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")))
#define AICR_TARGET_INLINE AICR_TARGET __attribute__((always_inline)) inline

namespace aicr {
namespace {

constexpr size_t kGroup = kRounds * kWideLanes;
constexpr int kHalves = 2;

// 16 entries of 64 bits, as their low and high halves. Loads one by one: gather instructions are slower than
// this on some processors, by a lot, and hardly faster on others.
AICR_TARGET_INLINE void look_up(const uint64_t* table, __m512i at, __m512i& low, __m512i& high) {
  alignas(64) uint32_t position[16];
  _mm512_store_si512(position, at);
  // Pairs (4c, 4c+1) go to 128-bit part c of one register, pairs (4c+2, 4c+3) to that of another; a shuffle
  // within the parts then sorts low from high.
  __m128i pair[8];
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {
    const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(table + position[2 * k]));
    pair[k] = _mm_castpd_si128(
        _mm_loadh_pd(_mm_castsi128_pd(first), reinterpret_cast<const double*>(table + position[2 * k + 1])));
  }
  const __m256i even_low = _mm256_inserti128_si256(_mm256_castsi128_si256(pair[0]), pair[2], 1);
  const __m256i even_high = _mm256_inserti128_si256(_mm256_castsi128_si256(pair[4]), pair[6], 1);
  const __m256i odd_low = _mm256_inserti128_si256(_mm256_castsi128_si256(pair[1]), pair[3], 1);
  const __m256i odd_high = _mm256_inserti128_si256(_mm256_castsi128_si256(pair[5]), pair[7], 1);
  const __m512 even = _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(even_low), even_high, 1));
  const __m512 odd = _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(odd_low), odd_high, 1));
  low = _mm512_castps_si512(_mm512_shuffle_ps(even, odd, 0x88));
  high = _mm512_castps_si512(_mm512_shuffle_ps(even, odd, 0xdd));
}

AICR_TARGET bool decode_wide(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                             uint8_t* entry) {
  const uint64_t* table = tables.decode_table();
  const bool first_is_skip = tables.first_is_skip();
  const __m512i byte = _mm512_set1_epi32(255), probability = _mm512_set1_epi32(kProbabilityOne - 1);
  const __m512i number = _mm512_set1_epi32(kMaxEntries - 1), one = _mm512_set1_epi32(1);
  const __m512i bucket_mask = _mm512_set1_epi32(kBuckets - 1), state_low = _mm512_set1_epi32(kStateLow);
  __m512i state[kHalves] = {_mm512_load_si512(lanes.states.data()),
                            _mm512_load_si512(lanes.states.data() + 16)};
  const uint8_t* word = lanes.word;
  for (; groups > 0 && word <= lanes.words_end; --groups, index += kGroup, entry += kGroup) {
    const __m512i indices[kHalves] = {_mm512_loadu_si512(index), _mm512_loadu_si512(index + 64)};
    if (first_is_skip && _mm512_test_epi8_mask(indices[0], indices[0]) == 0 &&
        _mm512_test_epi8_mask(indices[1], indices[1]) == 0) {
      _mm512_storeu_si512(entry, _mm512_setzero_si512());
      _mm512_storeu_si512(entry + 64, _mm512_setzero_si512());
      continue;
    }
    __m512i entries[kHalves] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 4
    for (int round = 0; round < kRounds; ++round) {
      __mmask16 needs[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m512i x = state[h];
        const __m512i t = _mm512_and_si512(_mm512_srli_epi32(indices[h], 8 * round), byte);
        const __m512i bucket = _mm512_and_si512(_mm512_srli_epi32(x, kBucketBits), bucket_mask);
        __m512i low, high;
        look_up(table, _mm512_or_si512(_mm512_slli_epi32(t, 6), bucket), low, high);
        const __m512i within = _mm512_and_si512(x, byte), threshold = _mm512_and_si512(low, byte);
        const __mmask16 second = _mm512_cmpge_epu32_mask(within, threshold);
        // See rans_tables.hpp for the fields.
        const __m512i fields = _mm512_mask_shrdi_epi32(low, second, low, high, kSecondEntry);
        const __m512i frequency_less_1 = _mm512_and_si512(_mm512_srli_epi32(fields, 8), probability);
        const __m512i symbol = _mm512_and_si512(_mm512_srli_epi32(fields, 22), number);
        const __m512i bias =
            _mm512_mask_srai_epi32(_mm512_sub_epi32(frequency_less_1, threshold), second, high, 16);
        entries[h] = _mm512_or_si512(entries[h], _mm512_slli_epi32(symbol, 8 * round));
        const __m512i quotient = _mm512_srli_epi32(x, kProbabilityBits);
        const __m512i rest = _mm512_add_epi32(_mm512_add_epi32(quotient, within), one);
        state[h] =
            _mm512_add_epi32(_mm512_mullo_epi32(frequency_less_1, quotient), _mm512_add_epi32(rest, bias));
        needs[h] = _mm512_cmplt_epu32_mask(state[h], state_low);
      }
      // Two loads of words, the second depending on the first, are sooner there than one for all 32 lanes,
      // whose expansion has to wait for both halves.
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m256i next = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word));
        const __m512i words = _mm512_maskz_expand_epi32(needs[h], _mm512_cvtepu16_epi32(next));
        word += 2 * _mm_popcnt_u32(needs[h]);
        state[h] = _mm512_mask_or_epi32(state[h], needs[h], _mm512_slli_epi32(state[h], kWordBits), words);
      }
    }
    _mm512_storeu_si512(entry, entries[0]);
    _mm512_storeu_si512(entry + 64, entries[1]);
  }
  _mm512_store_si512(lanes.states.data(), state[0]);
  _mm512_store_si512(lanes.states.data() + 16, state[1]);
  lanes.word = word;
  return word <= lanes.words_end;
}

AICR_TARGET void encode_wide(const TableSet& tables, const uint8_t* index, const uint8_t* entry,
                             size_t groups, EncodeLanes& lanes) {
  const uint64_t* table = tables.encode_table();
  const uint16_t* slots = tables.slot_table();
  const bool first_is_skip = tables.first_is_skip();
  const __m512i byte = _mm512_set1_epi32(255), probability = _mm512_set1_epi32(kProbabilityOne - 1);
  const __m512i odd = _mm512_set1_epi64(static_cast<long long>(0xffffffff00000000ull));
  const __m512i below_word = _mm512_set1_epi32(0x1ffff), shift_mask = _mm512_set1_epi32(15);
  const __m512i one = _mm512_set1_epi32(1);
  alignas(64) static constexpr uint16_t kIota[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                     11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                     22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  const __m512i iota = _mm512_load_si512(kIota);
  __m512i state[kHalves] = {_mm512_load_si512(lanes.states.data()),
                            _mm512_load_si512(lanes.states.data() + 16)};
  uint16_t* word = lanes.word;
  while (groups-- > 0) {
    const uint8_t *group_index = index + groups * kGroup, *group_entry = entry + groups * kGroup;
    const __m512i indices[kHalves] = {_mm512_loadu_si512(group_index), _mm512_loadu_si512(group_index + 64)};
    if (first_is_skip && _mm512_test_epi8_mask(indices[0], indices[0]) == 0 &&
        _mm512_test_epi8_mask(indices[1], indices[1]) == 0) {
      continue;
    }
    const __m512i entries[kHalves] = {_mm512_loadu_si512(group_entry), _mm512_loadu_si512(group_entry + 64)};
#pragma GCC unroll 4
    for (int round = kRounds - 1; round >= 0; --round) {
      __m512i low[kHalves], high[kHalves], tables_at[kHalves];
      __mmask16 full[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m512i t = _mm512_and_si512(_mm512_srli_epi32(indices[h], 8 * round), byte);
        const __m512i e = _mm512_and_si512(_mm512_srli_epi32(entries[h], 8 * round), byte);
        tables_at[h] = _mm512_slli_epi32(t, kProbabilityBits);
        look_up(table, _mm512_or_si512(_mm512_slli_epi32(t, 6), e), low[h], high[h]);
        const __m512i limit =
            _mm512_or_si512(_mm512_slli_epi32(_mm512_and_si512(high[h], probability), 17), below_word);
        full[h] = _mm512_cmpgt_epu32_mask(state[h], limit);
      }
      // Words of the full lanes, in ascending order, end where those of the round before began. They are
      // packed to the front of a register, then turned to its back.
      const __mmask32 all = _mm512_kunpackw(full[1], full[0]);
      const __m512i halves = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(state[0])),
                                                _mm512_cvtepi32_epi16(state[1]), 1);
      const int count = _mm_popcnt_u32(all);
      const __m512i turn = _mm512_add_epi16(iota, _mm512_set1_epi16(static_cast<int16_t>(count)));
      _mm512_storeu_si512(word - 32,
                          _mm512_permutexvar_epi16(turn, _mm512_maskz_compress_epi16(all, halves)));
      word -= count;
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const __m512i x = _mm512_mask_srli_epi32(state[h], full[h], state[h], kWordBits);
        const __m512i frequency_less_1 = _mm512_and_si512(high[h], probability);
        const __m512i even_product = _mm512_srli_epi64(_mm512_mul_epu32(x, low[h]), 32);
        const __m512i odd_product = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(low[h], 32));
        const __m512i product = _mm512_or_si512(even_product, _mm512_and_si512(odd_product, odd));
        const __m512i shift = _mm512_and_si512(_mm512_srli_epi32(high[h], 14), shift_mask);
        __m512i quotient = _mm512_srlv_epi32(product, shift);
        quotient = _mm512_mask_add_epi32(
            quotient, _mm512_testn_epi32_mask(frequency_less_1, frequency_less_1), quotient, one);
        const __m512i first_rank = _mm512_add_epi32(_mm512_srli_epi32(high[h], 18), tables_at[h]);
        const __m512i remainder =
            _mm512_sub_epi32(_mm512_sub_epi32(x, quotient), _mm512_mullo_epi32(quotient, frequency_less_1));
        alignas(64) uint32_t rank[16];
        _mm512_store_si512(rank, _mm512_add_epi32(first_rank, remainder));
        __m128i slot[2];
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
          const uint32_t* at = rank + 8 * k;
          __m128i s = _mm_cvtsi32_si128(slots[at[0]]);
          s = _mm_insert_epi16(s, slots[at[1]], 1);
          s = _mm_insert_epi16(s, slots[at[2]], 2);
          s = _mm_insert_epi16(s, slots[at[3]], 3);
          s = _mm_insert_epi16(s, slots[at[4]], 4);
          s = _mm_insert_epi16(s, slots[at[5]], 5);
          s = _mm_insert_epi16(s, slots[at[6]], 6);
          slot[k] = _mm_insert_epi16(s, slots[at[7]], 7);
        }
        const __m512i found = _mm512_cvtepu16_epi32(_mm256_set_m128i(slot[1], slot[0]));
        state[h] = _mm512_or_si512(_mm512_slli_epi32(quotient, kProbabilityBits), found);
      }
    }
  }
  _mm512_store_si512(lanes.states.data(), state[0]);
  _mm512_store_si512(lanes.states.data() + 16, state[1]);
  lanes.word = word;
}

// 256 bytes in registers, and for 64 indices their bytes.
struct ByteTable {
  __m512i part[4];
};

AICR_TARGET_INLINE ByteTable load_bytes(const void* bytes) {
  const auto* at = static_cast<const uint8_t*>(bytes);
  return {{_mm512_load_si512(at), _mm512_load_si512(at + 64), _mm512_load_si512(at + 128),
           _mm512_load_si512(at + 192)}};
}

AICR_TARGET_INLINE __m512i find_bytes(const ByteTable& table, __m512i index) {
  const __m512i low = _mm512_permutex2var_epi8(table.part[0], index, table.part[1]);
  const __m512i high = _mm512_permutex2var_epi8(table.part[2], index, table.part[3]);
  return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), high);
}

AICR_TARGET_INLINE __m512i widen(__m512i bytes, int half) {
  return _mm512_cvtepu8_epi16(half == 0 ? _mm512_castsi512_si256(bytes)
                                        : _mm512_extracti64x4_epi64(bytes, 1));
}

AICR_TARGET_INLINE __m512i widen_signed(__m512i bytes, int half) {
  return _mm512_cvtepi8_epi16(half == 0 ? _mm512_castsi512_si256(bytes)
                                        : _mm512_extracti64x4_epi64(bytes, 1));
}

// Raw bits lie in the stream as they do in 16-bit numbers put side by side, less the bits that are not there:
// one PDEP makes four symbols' numbers of them, one PEXT the reverse.
AICR_TARGET size_t join(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t count,
                        BitReader& raw, int16_t* symbols) {
  if (!tables.is_compact()) return 0;
  const ByteTable offsets = load_bytes(tables.compact().offset.data());
  const ByteTable shifts = load_bytes(tables.compact().shift.data());
  const __m512i escape = _mm512_set1_epi8(kEscapeMark), one = _mm512_set1_epi16(1);
  size_t done = 0;
  for (; done + kBlock <= count; done += kBlock) {
    const __m512i entries = _mm512_loadu_si512(entry + done), indices = _mm512_loadu_si512(index + done);
    if (_mm512_cmpeq_epi8_mask(entries, escape) != 0) break;
    const __m512i quotients = _mm512_add_epi8(entries, find_bytes(offsets, indices));
    const __m512i shift = find_bytes(shifts, indices);
    if (_mm512_test_epi8_mask(shift, shift) == 0) {
      _mm512_storeu_si512(symbols + done, widen_signed(quotients, 0));
      _mm512_storeu_si512(symbols + done + 32, widen_signed(quotients, 1));
      continue;
    }
    alignas(64) uint64_t masks[16], numbers[16];
    for (int h = 0; h < 2; ++h) {
      _mm512_store_si512(masks + 8 * h, _mm512_sub_epi16(_mm512_sllv_epi16(one, widen(shift, h)), one));
    }
    uint64_t position = raw.position();
#pragma GCC unroll 16
    for (int k = 0; k < 16; ++k) {
      numbers[k] = _pdep_u64(raw.window(position), masks[k]);
      position += static_cast<uint64_t>(_mm_popcnt_u64(masks[k]));
    }
    if (!raw.has(position - raw.position())) break;
    raw.skip(position - raw.position());
    for (int h = 0; h < 2; ++h) {
      const __m512i amount = widen(shift, h);
      const __m512i half = _mm512_srli_epi16(_mm512_sllv_epi16(one, amount), 1);
      const __m512i symbol = _mm512_add_epi16(_mm512_sllv_epi16(widen_signed(quotients, h), amount),
                                              _mm512_load_si512(numbers + 8 * h));
      _mm512_storeu_si512(symbols + done + 32 * h, _mm512_sub_epi16(symbol, half));
    }
  }
  return done;
}

AICR_TARGET size_t split(const TableSet& tables, const int16_t* symbols, const uint8_t* index, size_t count,
                         uint8_t* entry, BitWriter& raw) {
  if (!tables.is_compact()) return 0;
  const ByteTable offsets = load_bytes(tables.compact().offset.data());
  const ByteTable shifts = load_bytes(tables.compact().shift.data());
  const ByteTable regulars = load_bytes(tables.compact().regular.data());
  const __m512i one = _mm512_set1_epi16(1);
  size_t done = 0;
  for (; done + kBlock <= count; done += kBlock) {
    const __m512i indices = _mm512_loadu_si512(index + done);
    const __m512i offset = find_bytes(offsets, indices), shift = find_bytes(shifts, indices);
    const __m512i regular = find_bytes(regulars, indices);
    alignas(64) uint64_t masks[16], numbers[16];
    __m256i entries[2];
    __mmask32 inside = ~__mmask32{0};
    for (int h = 0; h < 2; ++h) {
      const __m512i symbol = _mm512_loadu_si512(symbols + done + 32 * h), amount = widen(shift, h);
      const __m512i power = _mm512_sllv_epi16(one, amount), mask = _mm512_sub_epi16(power, one);
      // (symbol + half) >> shift in 16 bits: rounding up is a matter of the highest bit shifted out. Shifts
      // by more than 15, as for no shift at all here, give 0.
      const __m512i up = _mm512_and_si512(_mm512_srlv_epi16(symbol, _mm512_sub_epi16(amount, one)), one);
      const __m512i quotient = _mm512_add_epi16(_mm512_srav_epi16(symbol, amount), up);
      // Quotients have 16 bits and offsets 8: what wraps around is still far outside of the table.
      const __m512i number = _mm512_sub_epi16(quotient, widen_signed(offset, h));
      inside &= _mm512_cmplt_epu16_mask(number, widen(regular, h));
      entries[h] = _mm512_cvtepi16_epi8(number);
      _mm512_store_si512(masks + 8 * h, mask);
      _mm512_store_si512(numbers + 8 * h, _mm512_add_epi16(symbol, _mm512_srli_epi16(power, 1)));
    }
    if (inside != ~__mmask32{0}) break;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(entry + done), entries[0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(entry + done + 32), entries[1]);
    if (_mm512_test_epi8_mask(shift, shift) == 0) continue;
    for (int k = 0; k < 16; ++k) {
      raw.put(_pext_u64(numbers[k], masks[k]), static_cast<int>(_mm_popcnt_u64(masks[k])));
    }
  }
  return done;
}

}  // namespace

const RansKernels kAvx512Kernels = {
    "avx512", decode_wide, decode_narrow_avx2, join, encode_wide, encode_narrow_avx2, split,
};

}  // namespace aicr

#endif
