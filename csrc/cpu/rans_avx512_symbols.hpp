// Symbols and entries with AVX-512, 64 at a time: what rans_avx512.cpp does beside the lanes.
#pragma once

#include "cpu/rans_x86.hpp"

namespace aicr {
namespace {

// 256 bytes in registers, and for 64 indices their bytes.
struct ByteTable {
  __m512i part[4];
};

AICR_AVX512_INLINE ByteTable load_bytes(const void* bytes) {
  const auto* at = static_cast<const uint8_t*>(bytes);
  return {{_mm512_load_si512(at), _mm512_load_si512(at + 64), _mm512_load_si512(at + 128),
           _mm512_load_si512(at + 192)}};
}

AICR_AVX512_INLINE __m512i find_bytes(const ByteTable& table, __m512i index) {
  const __m512i low = _mm512_permutex2var_epi8(table.part[0], index, table.part[1]);
  const __m512i high = _mm512_permutex2var_epi8(table.part[2], index, table.part[3]);
  return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), high);
}

AICR_AVX512_INLINE __m512i widen(__m512i bytes, int half) {
  return _mm512_cvtepu8_epi16(half == 0 ? _mm512_castsi512_si256(bytes)
                                        : _mm512_extracti64x4_epi64(bytes, 1));
}

AICR_AVX512_INLINE __m512i widen_signed(__m512i bytes, int half) {
  return _mm512_cvtepi8_epi16(half == 0 ? _mm512_castsi512_si256(bytes)
                                        : _mm512_extracti64x4_epi64(bytes, 1));
}

AICR_AVX512 size_t join(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t count,
                        BitReader& reader, int16_t* symbols) {
  if (!tables.is_compact()) return 0;
  const ByteTable offsets = load_bytes(tables.compact().offset.data());
  const ByteTable raw_masks = load_bytes(tables.compact().raw_mask.data());
  const __m512i escape = _mm512_set1_epi8(kEscapeMark), one = _mm512_set1_epi16(1);
  BitReader raw = reader;  // a copy, which no store to symbols can change
  size_t done = 0;
  for (; done + kBlock <= count; done += kBlock) {
    const __m512i entries = _mm512_loadu_si512(entry + done), indices = _mm512_loadu_si512(index + done);
    if (_mm512_cmpeq_epi8_mask(entries, escape) != 0) break;
    const __m512i quotients = _mm512_add_epi8(entries, find_bytes(offsets, indices));
    const __m512i mask = find_bytes(raw_masks, indices);
    if (_mm512_test_epi8_mask(mask, mask) == 0) {
      for (int h = 0; h < 2; ++h) _mm512_storeu_si512(symbols + done + 32 * h, widen_signed(quotients, h));
      continue;
    }
    alignas(64) uint64_t masks[8];
    _mm512_store_si512(masks, mask);
    int64_t n[8];
    if (!read_raw<kBlock>(raw, masks, n)) break;
    const __m512i numbers = _mm512_set_epi64(n[7], n[6], n[5], n[4], n[3], n[2], n[1], n[0]);
    // (mask + 1) / 2 is half the range of the raw bits.
    const __m512i centred = _mm512_sub_epi8(numbers, _mm512_avg_epu8(mask, _mm512_setzero_si512()));
    for (int h = 0; h < 2; ++h) {
      const __m512i power = _mm512_add_epi16(widen(mask, h), one);
      const __m512i product = _mm512_mullo_epi16(widen_signed(quotients, h), power);
      _mm512_storeu_si512(symbols + done + 32 * h, _mm512_add_epi16(product, widen_signed(centred, h)));
    }
  }
  reader = raw;
  return done;
}

AICR_AVX512 size_t split(const TableSet& tables, const int16_t* symbols, const uint8_t* index, size_t count,
                         uint8_t* entry, BitWriter& writer) {
  if (!tables.is_compact()) return 0;
  const ByteTable offsets = load_bytes(tables.compact().offset.data());
  const ByteTable shifts = load_bytes(tables.compact().shift.data());
  const ByteTable regulars = load_bytes(tables.compact().regular.data());
  const __m512i one = _mm512_set1_epi16(1);
  BitWriter::Cursor raw = writer.reserve(count);
  size_t done = 0;
  for (; done + kBlock <= count; done += kBlock) {
    const __m512i indices = _mm512_loadu_si512(index + done);
    const __m512i offset = find_bytes(offsets, indices), shift = find_bytes(shifts, indices);
    const __m512i regular = find_bytes(regulars, indices);
    __m256i entries[2], mask[2], centred[2];
    __mmask32 inside = ~__mmask32{0};
    for (int h = 0; h < 2; ++h) {
      const __m512i symbol = _mm512_loadu_si512(symbols + done + 32 * h), amount = widen(shift, h);
      const __m512i power = _mm512_sllv_epi16(one, amount);
      // (symbol + half) >> shift in 16 bits: rounding up is a matter of the highest bit shifted out. Shifts
      // by more than 15, as for no shift at all here, give 0.
      const __m512i up = _mm512_and_si512(_mm512_srlv_epi16(symbol, _mm512_sub_epi16(amount, one)), one);
      const __m512i quotient = _mm512_add_epi16(_mm512_srav_epi16(symbol, amount), up);
      // Quotients have 16 bits and offsets 8: what wraps around is still far outside of the table.
      const __m512i number = _mm512_sub_epi16(quotient, widen_signed(offset, h));
      inside &= _mm512_cmplt_epu16_mask(number, widen(regular, h));
      entries[h] = _mm512_cvtepi16_epi8(number);
      mask[h] = _mm512_cvtepi16_epi8(_mm512_sub_epi16(power, one));
      centred[h] = _mm512_cvtepi16_epi8(_mm512_add_epi16(symbol, _mm512_srli_epi16(power, 1)));
    }
    if (inside != ~__mmask32{0}) break;
    alignas(64) uint64_t masks[8], numbers[8];
    for (int h = 0; h < 2; ++h) {
      store(entry + done + 32 * h, entries[h]);
      store(masks + 4 * h, mask[h]);
      store(numbers + 4 * h, centred[h]);
    }
    if (_mm512_test_epi8_mask(shift, shift) != 0) write_raw<kBlock>(raw, masks, numbers);
  }
  writer.advance(raw);
  return done;
}

}  // namespace
}  // namespace aicr
