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

// kFew: all indices are below kFewTables.
constexpr size_t kFewTables = 128;
template <bool kFew = false>
AICR_AVX512_INLINE __m512i find_bytes(const ByteTable& table, __m512i index) {
  const __m512i low = _mm512_permutex2var_epi8(table.part[0], index, table.part[1]);
  if (kFew) return low;
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

// Raw bits of 64 symbols, a byte for each. `shift` says how many each has, at most kCompactShift, and mask is
// 2^shift - 1. False if there are not that many bits.
AICR_AVX512_INLINE bool read_raw(BitReader& raw, __m512i shift, __m512i mask, __m512i& numbers) {
  const __m512i zero = _mm512_setzero_si512();
  const __m512i sum_before = _mm512_set1_epi64(0x0101010101010100),
                steps = _mm512_set1_epi64(0x0706050403020100);
  const __m512i lowest_bytes = _mm512_set4_epi64(0x0808080808080808, 0, 0x0808080808080808, 0);
  // How many raw bits each eight symbols have, which are 64 bits here, and how many all up to them have.
  const __m512i own = _mm512_sad_epu8(shift, zero);
  __m512i end = _mm512_add_epi64(own, _mm512_alignr_epi64(own, zero, 7));
  end = _mm512_add_epi64(end, _mm512_alignr_epi64(end, zero, 6));
  end = _mm512_add_epi64(end, _mm512_alignr_epi64(end, zero, 4));
  const uint64_t position = raw.position();
  const auto taken = static_cast<uint64_t>(_mm_extract_epi64(_mm512_extracti32x4_epi32(end, 3), 1));
  if (!raw.has(taken)) return false;
  raw.skip(taken);
  // Eight symbols take eight bytes, from the one with their first bit on, and each symbol takes eight bits of
  // those, from its own first bit on.
  const __m512i begin =
      _mm512_add_epi64(_mm512_sub_epi64(end, own), _mm512_set1_epi64(static_cast<int64_t>(position & 7)));
  const __m512i first_byte = _mm512_shuffle_epi8(_mm512_srli_epi64(begin, 3), lowest_bytes);
  const __m512i window =
      _mm512_permutexvar_epi8(_mm512_add_epi8(first_byte, steps), _mm512_loadu_si512(raw.byte_at(position)));
  const __m512i first_bit = _mm512_shuffle_epi8(_mm512_and_si512(begin, _mm512_set1_epi64(7)), lowest_bytes);
  const __m512i bit = _mm512_add_epi8(first_bit, _mm512_mullo_epi64(shift, sum_before));
  numbers = _mm512_and_si512(_mm512_multishift_epi64_epi8(bit, window), mask);
  return true;
}

template <bool kFew>
AICR_AVX512 size_t join_blocks(const TableSet& tables, const uint8_t* index, const uint8_t* entry,
                               size_t count, BitReader& reader, int16_t* symbols, Unchecked& unchecked) {
  const ByteTable offsets = load_bytes(tables.compact().offset.data());
  const ByteTable shifts = load_bytes(tables.compact().shift.data());
  const __m512i escape = _mm512_set1_epi8(kEscapeMark);
  const __m512i mask_of = _mm512_set1_epi64(0x7f3f1f0f07030100);  // byte s: 2^s - 1
  BitReader raw = reader;  // a copy, which no store to symbols can change
  ChunkChecksum checksum(unchecked, count);
  size_t done = 0;
  for (; done + kBlock <= count; done += kBlock) {
    checksum.step<kBlock>();
    const __m512i entries = _mm512_loadu_si512(entry + done), indices = _mm512_loadu_si512(index + done);
    if (_mm512_cmpeq_epi8_mask(entries, escape) != 0) break;
    const __m512i quotients = _mm512_add_epi8(entries, find_bytes<kFew>(offsets, indices));
    // Whether there are any raw bits at all is as good as random; there is no branch for it.
    const __m512i shift = find_bytes<kFew>(shifts, indices), mask = _mm512_shuffle_epi8(mask_of, shift);
    __m512i numbers;
    if (!read_raw(raw, shift, mask, numbers)) break;
    // (mask + 1) / 2 is half the range of the raw bits.
    const __m512i centred = _mm512_sub_epi8(numbers, _mm512_avg_epu8(mask, _mm512_setzero_si512()));
    for (int h = 0; h < 2; ++h) {
      const __m512i high = _mm512_sllv_epi16(widen_signed(quotients, h), widen(shift, h));
      _mm512_storeu_si512(symbols + done + 32 * h, _mm512_add_epi16(high, widen_signed(centred, h)));
    }
  }
  if (done == count) checksum.finish(unchecked);
  reader = raw;
  return done;
}

AICR_AVX512 size_t join(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t count,
                        BitReader& raw, int16_t* symbols, Unchecked& unchecked) {
  if (!tables.is_compact()) return 0;
  const auto blocks = tables.tables() <= kFewTables ? join_blocks<true> : join_blocks<false>;
  return blocks(tables, index, entry, count, raw, symbols, unchecked);
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
