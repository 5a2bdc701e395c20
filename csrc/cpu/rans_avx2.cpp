// The coder's lanes for AVX2 (with BMI2): four registers of 8 states for 32 lanes, one for 8.
#if defined(__x86_64__)

#include "cpu/rans_avx2_symbols.hpp"
#include "cpu/rans_x86.hpp"

namespace aicr {
namespace {

template <int kLanes>
AICR_AVX2 bool decode(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                      uint8_t* entry) {
  constexpr size_t kGroup = kRounds * kLanes;
  constexpr int kParts = kLanes / kRegister;
  const uint64_t* table = tables.decode_table();
  const bool first_is_skip = tables.first_is_skip();
  const __m256i byte = _mm256_set1_epi32(255), frequency_mask = _mm256_set1_epi32(kFrequencyMask);
  const __m256i probability_one = _mm256_set1_epi32(kProbabilityOne);
  const __m256i number = _mm256_set1_epi32(kMaxEntries - 1), one = _mm256_set1_epi32(1);
  const __m256i state_low = _mm256_set1_epi32(kStateLow);
  __m256i state[kParts];
  for (int p = 0; p < kParts; ++p) state[p] = load(lanes.states.data() + kRegister * p);
  const uint8_t* word = lanes.word;
  for (; groups > 0 && word <= lanes.words_end; --groups, index += kGroup, entry += kGroup) {
    __m256i entries[kParts];
    for (int p = 0; p < kParts; ++p) entries[p] = _mm256_setzero_si256();
    const bool skipped = first_is_skip && all_zero(index, kParts);
#pragma GCC unroll 4
    for (int round = 0; round < kRounds; ++round) {
      if (skipped) continue;
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        const __m256i x = state[p];
        const __m256i bucket = _mm256_and_si256(_mm256_srli_epi32(x, kBucketBits), number);
        __m256i low, high;
        look_up(table, _mm256_or_si256(byte_at(load(index + 32 * p), round, 6), bucket), low, high);
        const __m256i rest = _mm256_andnot_si256(x, byte), reach = _mm256_and_si256(low, byte);
        const __m256i first = _mm256_cmpgt_epi32(rest, reach);
        // See rans_tables.hpp for the fields.
        const __m256i second_fields =
            _mm256_or_si256(_mm256_srli_epi32(low, kSecondEntry), _mm256_slli_epi32(high, 32 - kSecondEntry));
        const __m256i fields = _mm256_blendv_epi8(second_fields, low, first);
        const __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(fields, kFrequencyAt), frequency_mask);
        const __m256i second_bias =
            _mm256_sub_epi32(_mm256_srli_epi32(high, kSecondBiasAt - 32), probability_one);
        const __m256i bias = _mm256_blendv_epi8(second_bias, reach, first);
        entries[p] = _mm256_or_si256(entries[p], entry_at(fields, round));
        const __m256i factor = _mm256_add_epi32(_mm256_srli_epi32(x, kProbabilityBits), one);
        const __m256i next =
            _mm256_add_epi32(_mm256_mullo_epi32(frequency, factor), _mm256_sub_epi32(bias, rest));
        const __m256i needs = _mm256_cmpgt_epi32(state_low, next);
        const auto set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(needs)));
        const __m128i words = _mm_shuffle_epi8(load_128(word), load_128(kWordShuffles.spread[set]));
        word += 2 * _mm_popcnt_u64(set);
        const __m256i longer =
            _mm256_or_si256(_mm256_slli_epi32(next, kWordBits), _mm256_cvtepu16_epi32(words));
        state[p] = _mm256_blendv_epi8(next, longer, needs);
      }
    }
    for (int p = 0; p < kParts; ++p) store(entry + 32 * p, entries[p]);
  }
  for (int p = 0; p < kParts; ++p) store(lanes.states.data() + kRegister * p, state[p]);
  lanes.word = word;
  return word <= lanes.words_end;
}

template <int kLanes>
AICR_AVX2 void encode(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t groups,
                      EncodeLanes& lanes) {
  constexpr size_t kGroup = kRounds * kLanes;
  constexpr int kParts = kLanes / kRegister;
  const EncodeEntry* table = tables.encode_tables().entries();
  const Cell* cells = tables.encode_tables().cells();
  const bool first_is_skip = tables.first_is_skip();
  const __m256i one = _mm256_set1_epi32(1), low_half = _mm256_set1_epi32(0xffff);
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
        const EncodeEntries e =
            look_up(table, _mm256_or_si256(byte_at(load(group_index + 32 * p), round, 6),
                                           byte_at(load(group_entry + 32 * p), round, 0)));
        __m256i x = state[p];
        const __m256i full = _mm256_cmpgt_epi32(x, _mm256_sub_epi32(_mm256_slli_epi32(e.frequency, 17), one));
        // The words of the full lanes, in ascending order, end where those of the register before began.
        const auto set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(full)));
        const __m256i low = _mm256_and_si256(x, low_half);
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(word - kRegister),
                         _mm_shuffle_epi8(words, load_128(kWordShuffles.gather[set])));
        word -= _mm_popcnt_u64(set);
        x = _mm256_blendv_epi8(x, _mm256_srli_epi32(x, kWordBits), full);
        const __m256i quotient = divide(x, e);
        const __m256i frequency = _mm256_and_si256(e.frequency, low_half);
        const __m256i rank = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, frequency));
        __m256i cell_low, cell_high;
        look_up_cells(cells, rank, e, cell_low, cell_high);
        state[p] = new_state(quotient, rank, cell_low, cell_high);
      }
    }
  }
  for (int p = 0; p < kParts; ++p) store(lanes.states.data() + kRegister * p, state[p]);
  lanes.word = word;
}

}  // namespace

const RansKernels kAvx2Kernels = {
    "avx2", decode<kWideLanes>, decode<kNarrowLanes>, join, encode<kWideLanes>, encode<kNarrowLanes>, split,
};

}  // namespace aicr

#endif
