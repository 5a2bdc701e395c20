// CRC-32C (Castagnoli polynomial, reflected 0x82F63B78, as in iSCSI, RFC 3720).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace aicr {

namespace crc32c_detail {

inline constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ ((remainder & 1) ? 0x82F63B78u : 0u);
    table[byte] = remainder;
  }
  return table;
}

inline constexpr std::array<uint32_t, 256> kTable = make_table();

// Bytes per strand of the fast path, see crc32c_sse42.
inline constexpr size_t kStrand = 512;

// For each byte of a remainder, what it becomes kStrand zero bytes further on.
inline constexpr std::array<std::array<uint32_t, 256>, 4> make_strand_table() {
  std::array<std::array<uint32_t, 256>, 4> table{};
  for (int bit = 0; bit < 32; ++bit) {
    uint32_t remainder = 1u << bit;
    for (size_t i = 0; i < kStrand; ++i) remainder = (remainder >> 8) ^ kTable[remainder & 255];
    // A remainder is linear in its bits.
    for (uint32_t byte = 0; byte < 256; ++byte)
      if (byte >> (bit & 7) & 1) table[bit >> 3][byte] ^= remainder;
  }
  return table;
}

inline constexpr std::array<std::array<uint32_t, 256>, 4> kStrandTable = make_strand_table();

inline uint32_t skip_strand(uint64_t remainder) {
  return kStrandTable[0][remainder & 255] ^ kStrandTable[1][remainder >> 8 & 255] ^
         kStrandTable[2][remainder >> 16 & 255] ^ kStrandTable[3][remainder >> 24 & 255];
}

}  // namespace crc32c_detail

// One byte at a time; runs everywhere.
inline uint32_t crc32c_portable(uint32_t crc, const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  crc = ~crc;
  for (size_t i = 0; i < size; ++i) crc = (crc >> 8) ^ crc32c_detail::kTable[(crc ^ bytes[i]) & 255];
  return ~crc;
}

#if defined(__x86_64__)
// The instruction takes eight bytes a cycle, but gives its result three cycles later: four strands side by
// side, put together at the end, keep it busy.
__attribute__((target("sse4.2"))) inline uint32_t crc32c_sse42(uint32_t crc, const void* data, size_t size) {
  using crc32c_detail::kStrand;
  using crc32c_detail::skip_strand;
  const auto* bytes = static_cast<const uint8_t*>(data);
  uint64_t state = ~crc;
  for (; size >= 4 * kStrand; size -= 4 * kStrand, bytes += 4 * kStrand) {
    uint64_t strand[4] = {state, 0, 0, 0};
    for (size_t i = 0; i < kStrand; i += 8) {
      for (size_t k = 0; k < 4; ++k) {
        uint64_t chunk;
        std::memcpy(&chunk, bytes + k * kStrand + i, 8);
        strand[k] = _mm_crc32_u64(strand[k], chunk);
      }
    }
    state = strand[0];
    for (size_t k = 1; k < 4; ++k) state = skip_strand(state) ^ strand[k];
  }
  for (; size >= 8; size -= 8, bytes += 8) {
    uint64_t chunk;
    std::memcpy(&chunk, bytes, 8);
    state = _mm_crc32_u64(state, chunk);
  }
  auto rest = static_cast<uint32_t>(state);
  for (; size > 0; --size, ++bytes) rest = _mm_crc32_u8(rest, *bytes);
  return ~rest;
}
#endif

// `crc` is the value for the bytes before these; 0 to begin with.
inline uint32_t crc32c(uint32_t crc, const void* data, size_t size) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42(crc, data, size);
#endif
  return crc32c_portable(crc, data, size);
}

}  // namespace aicr
