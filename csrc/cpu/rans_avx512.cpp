// The coder's lanes for AVX-512 (F, BW, DQ, VL, VBMI, VBMI2): four registers of 8 states for 32 lanes, one
// for 8. The registers have 256 bits: those of 512 take longer for a step, and here one step waits for
// another.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// What gcc's own header leaves undefined on purpose, where a mask takes none of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "cpu/rans_avx512_symbols.hpp"
#include "cpu/rans_x86.hpp"

namespace aicr {
namespace {

template <int kLanes>
AICR_AVX512 bool decode(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                        uint8_t* entry) {
  constexpr size_t kGroup = kRounds * kLanes;
  constexpr int kParts = kLanes / kRegister;
  const uint64_t* table = tables.decode_table();
  const bool first_is_skip = tables.first_is_skip();
  const __m256i byte = _mm256_set1_epi32(255), frequency_mask = _mm256_set1_epi32(kFrequencyMask);
  const __m256i number = _mm256_set1_epi32(kMaxEntries - 1), numbers = _mm256_set1_epi8(kMaxEntries - 1);
  const __m256i one = _mm256_set1_epi32(1), ones = _mm256_set1_epi32(-1);
  const __m256i state_low = _mm256_set1_epi32(kStateLow);
  // Bit positions of numbers, for four bytes from the low and four from the high half of 64 bits.
  const __m256i number_at = _mm256_set1_epi64x(0x0101010101010101 * kNumberAt + (int64_t{0x20202020} << 32));
  const __m256i high_halves = _mm256_setr_epi16(0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7);
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
        // See rans_tables.hpp for the fields.
        __m256i fields, bias;
        if constexpr (kParts == 1) {
          // A comparison that gives a vector takes an instruction more and three cycles less, and one
          // register alone is all waiting.
          const __m256i first = _mm256_cmpgt_epi32(rest, reach);
          fields = _mm256_blendv_epi8(_mm256_shrdi_epi32(low, high, kSecondEntry), low, first);
          bias = _mm256_blendv_epi8(_mm256_shrdi_epi32(high, ones, kSecondBiasAt - 32), reach, first);
        } else {
          const __mmask8 second = _mm256_cmple_epu32_mask(rest, reach);
          fields = _mm256_mask_shrdi_epi32(low, second, low, high, kSecondEntry);
          bias = _mm256_mask_shrdi_epi32(reach, second, high, ones, kSecondBiasAt - 32);  // less 2^14
        }
        // The number of the entry and two bits behind it to byte `round`.
        entries[p] = _mm256_mask_multishift_epi64_epi8(entries[p], 0x11111111u << round, number_at, fields);
        const __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(fields, kFrequencyAt), frequency_mask);
        const __m256i factor = _mm256_add_epi32(_mm256_srli_epi32(x, kProbabilityBits), one);
        const __m256i next =
            _mm256_add_epi32(_mm256_mullo_epi32(frequency, factor), _mm256_sub_epi32(bias, rest));
        const __mmask8 needs = _mm256_cmplt_epu32_mask(next, state_low);
        // The words come as the high halves of 32 bits, from where they are shifted into the states.
        const __m256i words =
            _mm256_maskz_expand_epi32(needs, _mm256_permutexvar_epi16(high_halves, load(word)));
        word += 2 * _mm_popcnt_u64(needs);
        state[p] = _mm256_mask_shldi_epi32(next, needs, next, words, kWordBits);
      }
    }
    for (int p = 0; p < kParts; ++p) store(entry + 32 * p, _mm256_and_si256(entries[p], numbers));
  }
  for (int p = 0; p < kParts; ++p) store(lanes.states.data() + kRegister * p, state[p]);
  lanes.word = word;
  return word <= lanes.words_end;
}

// Each step is taken with all registers before the next one: in another order, what waits for the first
// register fills the queues of the processor, and the others come too late to be done meanwhile.
template <int kLanes>
AICR_AVX512 void encode(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t groups,
                        EncodeLanes& lanes) {
  constexpr size_t kGroup = kRounds * kLanes;
  constexpr int kParts = kLanes / kRegister;
  const EncodeEntry* table = tables.encode_tables().entries();
  const Cell* cells = tables.encode_tables().cells();
  const bool first_is_skip = tables.first_is_skip();
  const __m256i low_half = _mm256_set1_epi32(0xffff);
  __m256i state[kParts];
  for (int p = 0; p < kParts; ++p) state[p] = load(lanes.states.data() + kRegister * p);
  uint16_t* word = lanes.word;
  while (groups-- > 0) {
    const uint8_t *group_index = index + groups * kGroup, *group_entry = entry + groups * kGroup;
    if (first_is_skip && all_zero(group_index, kParts)) continue;
#pragma GCC unroll 4
    for (int round = kRounds - 1; round >= 0; --round) {
      EncodeEntries e[kParts];
      __m256i quotient[kParts], rank[kParts], cell_low[kParts], cell_high[kParts];
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        e[p] = look_up(table, _mm256_or_si256(byte_at(load(group_index + 32 * p), round, 6),
                                              byte_at(load(group_entry + 32 * p), round, 0)));
      }
#pragma GCC unroll 4
      for (int p = kParts - 1; p >= 0; --p) {
        __m256i x = state[p];
        const __mmask8 full = _mm256_cmpge_epu32_mask(x, _mm256_slli_epi32(e[p].frequency, 17));
        // The words of the full lanes, in ascending order, end where those of the register before began.
        _mm_storeu_si128(reinterpret_cast<__m128i*>(word - kRegister),
                         _mm_shuffle_epi8(_mm256_cvtepi32_epi16(x), load_128(kWordShuffles.gather[full])));
        word -= _mm_popcnt_u64(full);
        x = _mm256_mask_srli_epi32(x, full, x, kWordBits);
        quotient[p] = divide(x, e[p]);
        const __m256i frequency = _mm256_and_si256(e[p].frequency, low_half);
        rank[p] = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient[p], frequency));
      }
#pragma GCC unroll 4
      for (int p = kParts - 1; p >= 0; --p) look_up_cells(cells, rank[p], e[p], cell_low[p], cell_high[p]);
#pragma GCC unroll 4
      for (int p = kParts - 1; p >= 0; --p) {
        state[p] = new_state(quotient[p], rank[p], cell_low[p], cell_high[p]);
      }
    }
  }
  for (int p = 0; p < kParts; ++p) store(lanes.states.data() + kRegister * p, state[p]);
  lanes.word = word;
}

}  // namespace

const RansKernels kAvx512Kernels = {
    "avx512", decode<kWideLanes>, decode<kNarrowLanes>, join, encode<kWideLanes>, encode<kNarrowLanes>, split,
};

}  // namespace aicr

#endif
