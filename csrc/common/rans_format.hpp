// The constants of the coded stream. docs/bitstream.md, "Coder", is the specification.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/host_device.hpp"

namespace aicr {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "checksums and words are taken from memory as they lie");

// A lane's state stays in [kStateLow, 2^31). Words of 16 bits move in and out of it, at most one per symbol:
// with frequencies in [1, 2^14] a state that falls below kStateLow is at least 2, and one word lifts it over
// 2^15.
constexpr uint32_t kStateLow = 1u << 15;
constexpr uint32_t kStateHigh = 1u << 31;
constexpr int kWordBits = 16;

constexpr int kProbabilityBits = 14;
constexpr uint32_t kProbabilityOne = 1u << kProbabilityBits;

constexpr int kMaxEntries = 64;               // of one table, the escape included
constexpr int kEscapeMark = kMaxEntries - 1;  // what lanes call the escape, the last entry, of any table
constexpr int kMaxTables = 256;               // so that an index is one byte
constexpr int kMaxShift = 12;                 // raw low bits of one symbol

// A group is the unit of work of all lanes: lane l owns the kRounds symbols from kRounds * l on, and in round
// j each lane codes its symbol j. One lane then reads its symbols of a group with one aligned load.
constexpr int kRounds = 4;
constexpr int kWideLanes = 32;
constexpr int kNarrowLanes = 8;
constexpr int kMaxGroup = kRounds * kWideLanes;

// The checksum of the symbols is in the states that the encoder begins with and the decoder ends in: 15 bits
// in the first lane, 15 in the second, the last two in the third.
constexpr int kStateSpare =
    15;  // bits by which a state may exceed kStateLow and still be below 2 * kStateLow
constexpr int kChecksumLanes = 3;
AICR_HOST_DEVICE constexpr uint32_t last_state(uint32_t crc, int lane) {
  return kStateLow + (lane < kChecksumLanes ? crc >> (kStateSpare * lane) & (kStateLow - 1) : 0);
}

// A stream whose words take less than this is written with kNarrowLanes lanes: closing a lane costs about 3
// bytes.
constexpr size_t kWideFromWords = (32 << 10) / 2;

// Escapes are Exp-Golomb codes of this order. Two times the distance between two 16-bit numbers needs no more
// leading zeros than this; the bound also keeps a decoder's arithmetic on a damaged stream within 32 bits.
constexpr int kEscapeOrder = 1;
constexpr int kMaxEscapePrefix = 16;

}  // namespace aicr
