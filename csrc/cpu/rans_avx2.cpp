// The coder's loops for AVX2 (with BMI2): registers of 8 states, four of them for 32 lanes, one for 8.
//
// Only functions with AICR_TARGET are compiled for that instruction set, because the linker may keep this
// file's copy of any function that other files use too. For the same reason there are no lambdas here.
#if defined(__x86_64__)

#include "cpu/rans_avx2.hpp"

#include <immintrin.h>

#include <algorithm>
#include <array>

#define AICR_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define AICR_TARGET_INLINE AICR_TARGET __attribute__((always_inline)) inline

namespace aicr {
namespace {

constexpr int kRegister = 8;

// For each set of lanes: which word each of them takes, and its inverse that puts their words at the end of a
// register in order.
struct Permutations {
  alignas(64) uint8_t spread[256][kRegister];
  alignas(64) uint8_t gather[256][kRegister];
};

constexpr Permutations make_permutations() {
  Permutations made{};
  for (int set = 0; set < 256; ++set) {
    int members = 0;
    for (int lane = 0; lane < kRegister; ++lane) members += set >> lane & 1;
    int next = 0;
    for (int lane = 0; lane < kRegister; ++lane) {
      if ((set >> lane & 1) == 0) continue;
      made.spread[set][lane] = static_cast<uint8_t>(next);
      made.gather[set][kRegister - members + next] = static_cast<uint8_t>(lane);
      ++next;
    }
  }
  return made;
}

constexpr Permutations kPermutations = make_permutations();

AICR_TARGET_INLINE __m256i permutation(const uint8_t (&row)[kRegister]) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row)));
}

AICR_TARGET_INLINE __m256i load(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

AICR_TARGET_INLINE void store(void* at, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(at), value);
}

AICR_TARGET_INLINE bool all_zero(const uint8_t* bytes, size_t registers) {
  __m256i any = load(bytes);
  for (size_t k = 1; k < registers; ++k) any = _mm256_or_si256(any, load(bytes + 32 * k));
  return _mm256_testz_si256(any, any) != 0;
}

// 8 entries of 64 bits, as their low and high halves. Loads one by one: gather instructions are slower than
// this on some processors, by a lot, and hardly faster on others.
AICR_TARGET_INLINE void look_up(const uint64_t* table, __m256i at, __m256i& low, __m256i& high) {
  alignas(32) uint32_t position[kRegister];
  _mm256_store_si256(reinterpret_cast<__m256i*>(position), at);
  __m128i pair[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(table + position[2 * k]));
    pair[k] = _mm_castpd_si128(
        _mm_loadh_pd(_mm_castsi128_pd(first), reinterpret_cast<const double*>(table + position[2 * k + 1])));
  }
  const __m256 even =
      _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(pair[0]), pair[2], 1));
  const __m256 odd =
      _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(pair[1]), pair[3], 1));
  low = _mm256_castps_si256(_mm256_shuffle_ps(even, odd, 0x88));
  high = _mm256_castps_si256(_mm256_shuffle_ps(even, odd, 0xdd));
}

template <int kLanes>
AICR_TARGET bool decode(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                        uint8_t* entry) {
  constexpr size_t kGroup = kRounds * kLanes;
  constexpr int kParts = kLanes / kRegister;
  const uint64_t* table = tables.decode_table();
  const bool first_is_skip = tables.first_is_skip();
  const __m256i byte = _mm256_set1_epi32(255), probability = _mm256_set1_epi32(kProbabilityOne - 1);
  const __m256i number = _mm256_set1_epi32(kMaxEntries - 1), one = _mm256_set1_epi32(1);
  const __m256i state_low = _mm256_set1_epi32(kStateLow);
  __m256i state[kParts];
  for (int p = 0; p < kParts; ++p) state[p] = load(lanes.states.data() + kRegister * p);
  const uint8_t* word = lanes.word;
  for (; groups > 0 && word <= lanes.words_end; --groups, index += kGroup, entry += kGroup) {
    __m256i entries[kParts];
    for (int p = 0; p < kParts; ++p) entries[p] = _mm256_setzero_si256();
    if (first_is_skip && all_zero(index, kParts)) {
      for (int p = 0; p < kParts; ++p) store(entry + 32 * p, entries[p]);
      continue;
    }
#pragma GCC unroll 4
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        const __m256i x = state[p];
        const __m256i t = _mm256_and_si256(_mm256_srli_epi32(load(index + 32 * p), 8 * round), byte);
        const __m256i bucket = _mm256_and_si256(_mm256_srli_epi32(x, kBucketBits), number);
        __m256i low, high;
        look_up(table, _mm256_or_si256(_mm256_slli_epi32(t, 6), bucket), low, high);
        const __m256i within = _mm256_and_si256(x, byte), threshold = _mm256_and_si256(low, byte);
        const __m256i first = _mm256_cmpgt_epi32(threshold, within);
        // See rans_tables.hpp for the fields.
        const __m256i second_fields =
            _mm256_or_si256(_mm256_srli_epi32(low, kSecondEntry), _mm256_slli_epi32(high, 32 - kSecondEntry));
        const __m256i fields = _mm256_blendv_epi8(second_fields, low, first);
        const __m256i frequency_less_1 = _mm256_and_si256(_mm256_srli_epi32(fields, 8), probability);
        const __m256i symbol = _mm256_and_si256(_mm256_srli_epi32(fields, 22), number);
        const __m256i bias = _mm256_blendv_epi8(_mm256_srai_epi32(high, 16),
                                                _mm256_sub_epi32(frequency_less_1, threshold), first);
        entries[p] = _mm256_or_si256(entries[p], _mm256_slli_epi32(symbol, 8 * round));
        const __m256i quotient = _mm256_srli_epi32(x, kProbabilityBits);
        const __m256i rest = _mm256_add_epi32(_mm256_add_epi32(quotient, within), one);
        const __m256i next =
            _mm256_add_epi32(_mm256_mullo_epi32(frequency_less_1, quotient), _mm256_add_epi32(rest, bias));
        const __m256i needs = _mm256_cmpgt_epi32(state_low, next);
        const auto set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(needs)));
        const __m256i words = _mm256_permutevar8x32_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(word))),
            permutation(kPermutations.spread[set]));
        word += 2 * _mm_popcnt_u32(set);
        state[p] =
            _mm256_blendv_epi8(next, _mm256_or_si256(_mm256_slli_epi32(next, kWordBits), words), needs);
      }
    }
    for (int p = 0; p < kParts; ++p) store(entry + 32 * p, entries[p]);
  }
  for (int p = 0; p < kParts; ++p) store(lanes.states.data() + kRegister * p, state[p]);
  lanes.word = word;
  return word <= lanes.words_end;
}

template <int kLanes>
AICR_TARGET void encode(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t groups,
                        EncodeLanes& lanes) {
  constexpr size_t kGroup = kRounds * kLanes;
  constexpr int kParts = kLanes / kRegister;
  const uint64_t* table = tables.encode_table();
  const uint16_t* slots = tables.slot_table();
  const bool first_is_skip = tables.first_is_skip();
  const __m256i byte = _mm256_set1_epi32(255), probability = _mm256_set1_epi32(kProbabilityOne - 1);
  const __m256i below_word = _mm256_set1_epi32(0x1ffff), shift_mask = _mm256_set1_epi32(15);
  const __m256i word_mask = _mm256_set1_epi32(0xffff), zero = _mm256_setzero_si256();
  __m256i state[kParts];
  for (int p = 0; p < kParts; ++p) state[p] = load(lanes.states.data() + kRegister * p);
  uint16_t* word = lanes.word;
  while (groups-- > 0) {
    const uint8_t *group_index = index + groups * kGroup, *group_entry = entry + groups * kGroup;
    if (first_is_skip && all_zero(group_index, kParts)) continue;
#pragma GCC unroll 4
    for (int round = kRounds - 1; round >= 0; --round) {
#pragma GCC unroll 4
      for (int p = kParts - 1; p >= 0; --p) {
        const __m256i t = _mm256_and_si256(_mm256_srli_epi32(load(group_index + 32 * p), 8 * round), byte);
        const __m256i e = _mm256_and_si256(_mm256_srli_epi32(load(group_entry + 32 * p), 8 * round), byte);
        __m256i low, high, x = state[p];
        look_up(table, _mm256_or_si256(_mm256_slli_epi32(t, 6), e), low, high);
        const __m256i frequency_less_1 = _mm256_and_si256(high, probability);
        const __m256i full =
            _mm256_cmpgt_epi32(x, _mm256_or_si256(_mm256_slli_epi32(frequency_less_1, 17), below_word));
        // The words of the full lanes, in ascending order, end where those of the register before began.
        const auto set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(full)));
        const __m256i words = _mm256_permutevar8x32_epi32(_mm256_and_si256(x, word_mask),
                                                          permutation(kPermutations.gather[set]));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(word - kRegister),
                         _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
        word -= _mm_popcnt_u32(set);
        x = _mm256_blendv_epi8(x, _mm256_srli_epi32(x, kWordBits), full);
        const __m256i even_product = _mm256_srli_epi64(_mm256_mul_epu32(x, low), 32);
        const __m256i odd_product = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(low, 32));
        const __m256i product = _mm256_blend_epi32(even_product, odd_product, 0xaa);
        const __m256i shift = _mm256_and_si256(_mm256_srli_epi32(high, 14), shift_mask);
        // A comparison gives -1: one more where the frequency is 1.
        const __m256i quotient =
            _mm256_sub_epi32(_mm256_srlv_epi32(product, shift), _mm256_cmpeq_epi32(frequency_less_1, zero));
        const __m256i first_rank =
            _mm256_add_epi32(_mm256_srli_epi32(high, 18), _mm256_slli_epi32(t, kProbabilityBits));
        const __m256i remainder =
            _mm256_sub_epi32(_mm256_sub_epi32(x, quotient), _mm256_mullo_epi32(quotient, frequency_less_1));
        alignas(32) uint32_t rank[kRegister];
        _mm256_store_si256(reinterpret_cast<__m256i*>(rank), _mm256_add_epi32(first_rank, remainder));
        __m128i slot = _mm_cvtsi32_si128(slots[rank[0]]);
        slot = _mm_insert_epi16(slot, slots[rank[1]], 1);
        slot = _mm_insert_epi16(slot, slots[rank[2]], 2);
        slot = _mm_insert_epi16(slot, slots[rank[3]], 3);
        slot = _mm_insert_epi16(slot, slots[rank[4]], 4);
        slot = _mm_insert_epi16(slot, slots[rank[5]], 5);
        slot = _mm_insert_epi16(slot, slots[rank[6]], 6);
        slot = _mm_insert_epi16(slot, slots[rank[7]], 7);
        state[p] =
            _mm256_or_si256(_mm256_slli_epi32(quotient, kProbabilityBits), _mm256_cvtepu16_epi32(slot));
      }
    }
  }
  for (int p = 0; p < kParts; ++p) store(lanes.states.data() + kRegister * p, state[p]);
  lanes.word = word;
}

// Bytes of a table of up to 256, for 32 indices: sixteen of them at a time are one register. An index that is
// not among a register's sixteen gets 0 from it, because its top bit is set then.
template <size_t kTables>
AICR_TARGET_INLINE void find_bytes(const std::array<const uint8_t*, kTables>& bytes, size_t tables,
                                   __m256i index, __m256i (&found)[kTables]) {
  const __m256i sixteen = _mm256_set1_epi8(16), to_top = _mm256_set1_epi8(0x70);
  for (size_t k = 0; k < kTables; ++k) found[k] = _mm256_setzero_si256();
  for (size_t first = 0; first < tables; first += 16) {
    const __m256i at = _mm256_adds_epu8(index, to_top);
    for (size_t k = 0; k < kTables; ++k) {
      const __m256i part =
          _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes[k] + first)));
      found[k] = _mm256_or_si256(found[k], _mm256_shuffle_epi8(part, at));
    }
    index = _mm256_sub_epi8(index, sixteen);
  }
}

AICR_TARGET_INLINE __m256i widen(__m256i bytes, int half) {
  return _mm256_cvtepu8_epi16(half == 0 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1));
}

AICR_TARGET_INLINE __m256i widen_signed(__m256i bytes, int half) {
  return _mm256_cvtepi8_epi16(half == 0 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1));
}

// 2^shift as 16-bit numbers, of shifts that are bytes.
AICR_TARGET_INLINE __m256i power_of(__m256i shift, int half) {
  const __m256i low = _mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16,
                                       32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256i high = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0,
                                        0, 0, 0, 1, 2, 4, 8, 16, 32, 64, -128);
  return _mm256_or_si256(widen(_mm256_shuffle_epi8(low, shift), half),
                         _mm256_slli_epi16(widen(_mm256_shuffle_epi8(high, shift), half), 8));
}

// Raw bits lie in the stream as they do in 16-bit numbers put side by side, less the bits that are not there:
// one PDEP makes four symbols' numbers of them, one PEXT the reverse.
AICR_TARGET size_t join(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t count,
                        BitReader& raw, int16_t* symbols) {
  if (!tables.is_compact()) return 0;
  const CompactInfo& info = tables.compact();
  const std::array<const uint8_t*, 2> bytes = {reinterpret_cast<const uint8_t*>(info.offset.data()),
                                               info.shift.data()};
  const __m256i escape = _mm256_set1_epi8(kEscapeMark), one = _mm256_set1_epi16(1);
  size_t done = 0;
  for (; done + kBlock / 2 <= count; done += kBlock / 2) {
    const __m256i entries = load(entry + done);
    if (_mm256_movemask_epi8(_mm256_cmpeq_epi8(entries, escape)) != 0) break;
    __m256i found[2];
    find_bytes(bytes, tables.tables(), load(index + done), found);
    const __m256i quotients = _mm256_add_epi8(entries, found[0]), shift = found[1];
    if (_mm256_testz_si256(shift, shift)) {
      store(symbols + done, widen_signed(quotients, 0));
      store(symbols + done + 16, widen_signed(quotients, 1));
      continue;
    }
    alignas(32) uint64_t masks[8], numbers[8];
    const __m256i power[2] = {power_of(shift, 0), power_of(shift, 1)};
    for (int h = 0; h < 2; ++h) store(masks + 4 * h, _mm256_sub_epi16(power[h], one));
    uint64_t position = raw.position();
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      numbers[k] = _pdep_u64(raw.window(position), masks[k]);
      position += static_cast<uint64_t>(_mm_popcnt_u64(masks[k]));
    }
    if (!raw.has(position - raw.position())) break;
    raw.skip(position - raw.position());
    for (int h = 0; h < 2; ++h) {
      const __m256i symbol =
          _mm256_add_epi16(_mm256_mullo_epi16(widen_signed(quotients, h), power[h]), load(numbers + 4 * h));
      store(symbols + done + 16 * h, _mm256_sub_epi16(symbol, _mm256_srli_epi16(power[h], 1)));
    }
  }
  return done;
}

AICR_TARGET size_t split(const TableSet& tables, const int16_t* symbols, const uint8_t* index, size_t count,
                         uint8_t* entry, BitWriter& raw) {
  if (!tables.is_compact()) return 0;
  const CompactInfo& info = tables.compact();
  const std::array<const uint8_t*, 3> bytes = {reinterpret_cast<const uint8_t*>(info.offset.data()),
                                               info.shift.data(), info.regular.data()};
  const __m256i one = _mm256_set1_epi16(1), top = _mm256_set1_epi16(INT16_MIN);
  size_t done = 0;
  for (; done + kBlock / 2 <= count; done += kBlock / 2) {
    __m256i found[3];
    find_bytes(bytes, tables.tables(), load(index + done), found);
    const __m256i shift = found[1];
    alignas(32) uint64_t masks[8], numbers[8];
    __m256i number[2], outside = _mm256_setzero_si256();
    for (int h = 0; h < 2; ++h) {
      const __m256i symbol = load(symbols + done + 16 * h), power = power_of(shift, h);
      const __m256i half = _mm256_srli_epi16(power, 1);
      // (symbol + half) >> shift in 16 bits: the high half of the product with 2^(16 - shift), of numbers
      // made unsigned for that, where rounding up is a matter of the highest bit shifted out. For no shift
      // the factor does not fit; nothing is rounded then.
      const __m256i unshifted = _mm256_cmpeq_epi16(power, one);
      const __m256i factor = power_of(_mm256_sub_epi8(_mm256_set1_epi8(16), shift), h);
      const __m256i shifted = _mm256_sub_epi16(_mm256_mulhi_epu16(_mm256_xor_si256(symbol, top), factor),
                                               _mm256_srli_epi16(factor, 1));
      const __m256i floor = _mm256_blendv_epi8(shifted, symbol, unshifted);
      const __m256i exact = _mm256_cmpeq_epi16(_mm256_and_si256(symbol, half), _mm256_setzero_si256());
      const __m256i quotient = _mm256_add_epi16(floor, _mm256_andnot_si256(exact, one));
      // Quotients have 16 bits and offsets 8: what wraps around is still far outside of the table.
      number[h] = _mm256_sub_epi16(quotient, widen_signed(found[0], h));
      // Unsigned: inside if the larger of the number and the table's size is not the number.
      outside = _mm256_or_si256(
          outside, _mm256_cmpeq_epi16(_mm256_max_epu16(number[h], widen(found[2], h)), number[h]));
      store(masks + 4 * h, _mm256_sub_epi16(power, one));
      store(numbers + 4 * h, _mm256_add_epi16(symbol, half));
    }
    if (!_mm256_testz_si256(outside, outside)) break;
    store(entry + done,
          _mm256_permute4x64_epi64(_mm256_packus_epi16(number[0], number[1]), _MM_SHUFFLE(3, 1, 2, 0)));
    if (_mm256_testz_si256(shift, shift)) continue;
    for (int k = 0; k < 8; ++k) {
      raw.put(_pext_u64(numbers[k], masks[k]), static_cast<int>(_mm_popcnt_u64(masks[k])));
    }
  }
  return done;
}

}  // namespace

bool decode_narrow_avx2(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                        uint8_t* entry) {
  return decode<kNarrowLanes>(tables, index, groups, lanes, entry);
}

void encode_narrow_avx2(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t groups,
                        EncodeLanes& lanes) {
  encode<kNarrowLanes>(tables, index, entry, groups, lanes);
}

const RansKernels kAvx2Kernels = {
    "avx2", decode<kWideLanes>, decode_narrow_avx2, join, encode<kWideLanes>, encode_narrow_avx2, split,
};

}  // namespace aicr

#endif
