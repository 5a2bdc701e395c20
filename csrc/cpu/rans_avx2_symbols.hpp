// Symbols and entries with AVX2, 32 at a time: what rans_avx2.cpp does beside the lanes.
#pragma once

#include "cpu/rans_x86.hpp"

namespace aicr {
namespace {

constexpr size_t kHalfBlock = kBlock / 2;

// Bytes of tables of up to 256, for 32 indices: sixteen of them at a time are one register. An index that is
// not among a register's sixteen gets 0 from it, because its top bit is set then.
template <size_t kTables>
AICR_AVX2_INLINE void find_bytes(const std::array<const uint8_t*, kTables>& bytes, size_t tables,
                                 __m256i index, __m256i (&found)[kTables]) {
  const __m256i sixteen = _mm256_set1_epi8(16), to_top = _mm256_set1_epi8(0x70);
  for (size_t k = 0; k < kTables; ++k) found[k] = _mm256_setzero_si256();
  for (size_t first = 0; first < tables; first += 16) {
    const __m256i at = _mm256_adds_epu8(index, to_top);
    for (size_t k = 0; k < kTables; ++k) {
      const __m256i part = _mm256_broadcastsi128_si256(load_128(bytes[k] + first));
      found[k] = _mm256_or_si256(found[k], _mm256_shuffle_epi8(part, at));
    }
    index = _mm256_sub_epi8(index, sixteen);
  }
}

AICR_AVX2_INLINE __m256i widen(__m256i bytes, int half) {
  return _mm256_cvtepu8_epi16(half == 0 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1));
}

AICR_AVX2_INLINE __m256i widen_signed(__m256i bytes, int half) {
  return _mm256_cvtepi8_epi16(half == 0 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1));
}

AICR_AVX2 size_t join(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t count,
                      BitReader& reader, int16_t* symbols, Unchecked& unchecked) {
  if (!tables.is_compact()) return 0;
  const CompactInfo& info = tables.compact();
  const std::array<const uint8_t*, 2> bytes = {reinterpret_cast<const uint8_t*>(info.offset.data()),
                                               info.raw_mask.data()};
  const __m256i escape = _mm256_set1_epi8(kEscapeMark), one = _mm256_set1_epi16(1);
  BitReader raw = reader;  // a copy, which no store to symbols can change
  ChunkChecksum checksum(unchecked, count);
  size_t done = 0;
  for (; done + kHalfBlock <= count; done += kHalfBlock) {
    checksum.step<kHalfBlock>();
    const __m256i entries = load(entry + done);
    if (_mm256_movemask_epi8(_mm256_cmpeq_epi8(entries, escape)) != 0) break;
    __m256i found[2];
    find_bytes(bytes, tables.tables(), load(index + done), found);
    const __m256i quotients = _mm256_add_epi8(entries, found[0]), mask = found[1];
    if (_mm256_testz_si256(mask, mask)) {
      for (int h = 0; h < 2; ++h) store(symbols + done + 16 * h, widen_signed(quotients, h));
      continue;
    }
    alignas(32) uint64_t masks[4];
    store(masks, mask);
    int64_t n[4];
    if (!read_raw<kHalfBlock>(raw, masks, n)) break;
    const __m256i numbers = _mm256_set_epi64x(n[3], n[2], n[1], n[0]);
    // (mask + 1) / 2 is half the range of the raw bits.
    const __m256i centred = _mm256_sub_epi8(numbers, _mm256_avg_epu8(mask, _mm256_setzero_si256()));
    for (int h = 0; h < 2; ++h) {
      const __m256i product =
          _mm256_mullo_epi16(widen_signed(quotients, h), _mm256_add_epi16(widen(mask, h), one));
      store(symbols + done + 16 * h, _mm256_add_epi16(product, widen_signed(centred, h)));
    }
  }
  if (done == count) checksum.finish(unchecked);
  reader = raw;
  return done;
}

// 2^shift as 16-bit numbers, of shifts that are bytes.
AICR_AVX2_INLINE __m256i power_of(__m256i shift, int half) {
  const __m256i low = _mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16,
                                       32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256i high = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0,
                                        0, 0, 0, 1, 2, 4, 8, 16, 32, 64, -128);
  return _mm256_or_si256(widen(_mm256_shuffle_epi8(low, shift), half),
                         _mm256_slli_epi16(widen(_mm256_shuffle_epi8(high, shift), half), 8));
}

AICR_AVX2 size_t split(const TableSet& tables, const int16_t* symbols, const uint8_t* index, size_t count,
                       uint8_t* entry, BitWriter& writer) {
  if (!tables.is_compact()) return 0;
  const CompactInfo& info = tables.compact();
  const std::array<const uint8_t*, 3> bytes = {reinterpret_cast<const uint8_t*>(info.offset.data()),
                                               info.shift.data(), info.regular.data()};
  const __m256i one = _mm256_set1_epi16(1), top = _mm256_set1_epi16(INT16_MIN);
  const __m256i byte = _mm256_set1_epi16(255);
  BitWriter::Cursor raw = writer.reserve(count);
  size_t done = 0;
  for (; done + kHalfBlock <= count; done += kHalfBlock) {
    __m256i found[3];
    find_bytes(bytes, tables.tables(), load(index + done), found);
    const __m256i shift = found[1];
    __m256i number[2], mask[2], centred[2], outside = _mm256_setzero_si256();
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
      mask[h] = _mm256_sub_epi16(power, one);
      centred[h] = _mm256_and_si256(_mm256_add_epi16(symbol, half), byte);
    }
    if (!_mm256_testz_si256(outside, outside)) break;
    store(entry + done,
          _mm256_permute4x64_epi64(_mm256_packus_epi16(number[0], number[1]), _MM_SHUFFLE(3, 1, 2, 0)));
    if (_mm256_testz_si256(shift, shift)) continue;
    alignas(32) uint64_t masks[4], numbers[4];
    store(masks, _mm256_permute4x64_epi64(_mm256_packus_epi16(mask[0], mask[1]), _MM_SHUFFLE(3, 1, 2, 0)));
    store(numbers,
          _mm256_permute4x64_epi64(_mm256_packus_epi16(centred[0], centred[1]), _MM_SHUFFLE(3, 1, 2, 0)));
    write_raw<kHalfBlock>(raw, masks, numbers);
  }
  writer.advance(raw);
  return done;
}

}  // namespace
}  // namespace aicr
