// The loops of the coder that exist once per instruction set, and the choice among them.
//
// Every set of kernels reads and writes the same bytes. What keeps that simple: kernels only do whole groups
// (lanes) or whole blocks (symbols) in which nothing is out of the ordinary; the drivers in rans_decoder.hpp
// and rans_encoder.hpp give all the rest - the last group of a segment, escapes, the end of the raw bits,
// every error - to the scalar code.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/bit_io.hpp"
#include "common/rans_format.hpp"
#include "common/rans_tables.hpp"

namespace aicr {

// Symbols per block of join and split.
constexpr size_t kBlock = 64;

// Bytes behind the end of the words and of the raw bits that kernels may read: a group reads at most
// 2 * kMaxGroup bytes of words before their end is checked, a block kCompactShift * kBlock raw bits, and each
// load takes up to 64 bytes.
constexpr size_t kReadPadding = 2 * kMaxGroup + 128;
// Words in front of the last one put down that encode kernels may overwrite.
constexpr size_t kWritePadding = 32;

// Symbols that are decoded before the next step takes them up: so many that they are still in the first cache
// then, and a checksum of four strands (see crc32c.hpp).
constexpr size_t kChunk = 8 * kMaxGroup;

struct DecodeLanes {
  alignas(64) std::array<uint32_t, kWideLanes> states{};
  const uint8_t* word = nullptr;  // the next; the section need not be aligned
  const uint8_t* words_end = nullptr;
};

struct EncodeLanes {
  alignas(64) std::array<uint32_t, kWideLanes> states{};
  uint16_t* word = nullptr;  // the one put down last; the next goes in front of it
};

// Symbols that are not yet in the checksum of the stream, and the checksum of those before them.
struct Unchecked {
  const int16_t* first = nullptr;
  size_t count = 0;
  uint32_t crc = 0;
};

struct RansKernels {
  const char* name;

  // Table entries of `groups` whole groups. False as soon as a group has read past words_end.
  using Decode = bool (*)(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                          uint8_t* entry);
  Decode decode_wide;
  Decode decode_narrow;

  // Symbols of entries, with their raw bits: as many leading blocks as hold no escape and have all their
  // bits; returns the number of symbols done. May take what is unchecked into the checksum on the side.
  using Join = size_t (*)(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t count,
                          BitReader& raw, int16_t* symbols, Unchecked& unchecked);
  Join join;

  // Codes `groups` whole groups, the last one first; `index` and `entry` are those of the first.
  using Encode = void (*)(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t groups,
                          EncodeLanes& lanes);
  Encode encode_wide;
  Encode encode_narrow;

  // Entries and raw bits of symbols: as many leading blocks as hold only regular entries; returns the number
  // of symbols done. Null: none.
  using Split = size_t (*)(const TableSet& tables, const int16_t* symbols, const uint8_t* index, size_t count,
                           uint8_t* entry, BitWriter& raw);
  Split split;
};

extern const RansKernels kScalarKernels;
#if defined(__x86_64__)
extern const RansKernels kAvx2Kernels;
extern const RansKernels kAvx512Kernels;
#endif

// Names of the instruction sets this processor can run, slowest first; "scalar" is always there.
std::vector<std::string> available_kernels();

// The kernels in use: those of select_kernels, else those that the environment variable AICR_ISA names, else
// the fastest. Throws std::invalid_argument if the variable names none of available_kernels().
const RansKernels& active_kernels();

// Fixes the kernels for coders made from now on; "" goes back to the environment. Throws as above.
void select_kernels(const std::string& name);

}  // namespace aicr
