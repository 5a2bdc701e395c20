// What both warps of a stream share in a step of decoding; rans_decode.cu says which does what.
#pragma once

#include <cstdint>

#include "common/rans_kernels.hpp"
#include "common/stream_error.hpp"
#include "cuda/rans_warp.cuh"

namespace aicr {

constexpr int kTogether = 8 * kPiece;  // slots in one half of the memory; kChunk of the CPU's
constexpr int kStepThreads = 2 * kWarp;

static_assert(kTogether == kChunk, "faults are found in the order of the CPU");

// A section of bits, and the next of them.
struct Bits {
  const uint8_t* section;
  int64_t size;
  int64_t position;
};

// Words that are at hand when a group begins, and by how many more there may be for a while: one for each
// symbol of the group, those that are due, and as many as are staged at once.
constexpr int words_at_hand(int lanes) {
  return kRounds * lanes + kWarp;
}
constexpr int kStagedAtOnce = kWarp;

struct StepMemory {
  alignas(8) uint16_t slots[2][kTogether];  // the low halves of states: the slot is in the last 14 bits
  // From the first that the 1024 symbols in hand may take.
  uint16_t words[kTogether + kWarp + words_at_hand(kWideLanes) + kStagedAtOnce];
  StreamFault lanes_fault[2], symbols_fault[2];  // by turn; all kNone until the last one
  Bits escapes;                                  // which are rare, so they need no registers
};

// Both warps meet here after each turn, with what they have found, and learn how to go on. In a turn the
// lanes are 1024 symbols ahead, so a fault of symbols is the earlier one.
__device__ __forceinline__ StreamFault meet(StepMemory& memory, int turn, bool is_lanes, StreamFault found,
                                            int lane) {
  if (found != StreamFault::kNone && lane == 0) {
    (is_lanes ? memory.lanes_fault : memory.symbols_fault)[turn] = found;
  }
  __syncthreads();
  const StreamFault first = memory.symbols_fault[turn];
  return first != StreamFault::kNone ? first : memory.lanes_fault[turn];
}

// The part of a segment that a stream has.
struct Part {
  const uint8_t* index;
  int16_t* symbols;
  int64_t size;
};

}  // namespace aicr
