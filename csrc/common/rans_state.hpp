// What is between two steps of decoding a stream, on any device.
#pragma once

#include <cstdint>

#include "common/host_device.hpp"
#include "common/rans_format.hpp"
#include "common/stream_error.hpp"

namespace aicr {

// A stream between two steps. Offsets count bytes from the start of the memory that the stream lies in, bits
// from the start of their section, so that a copy of both decodes on wherever it is, on any device.
struct StreamState {
  uint32_t lanes[kWideLanes];  // their states
  int64_t word;                // offset of the next
  int64_t words_end;           // where the raw section begins
  int64_t raw_end;             // where the escape section begins
  int64_t end;
  int64_t raw_bit;  // the next
  int64_t escape_bit;
  uint32_t crc;        // of the symbols so far
  int32_t lane_count;  // 8 or 32
  StreamFault fault;   // what was found wrong; the rest then means nothing
  int32_t padding;
};
static_assert(sizeof(StreamState) == 192 && alignof(StreamState) == 8, "rows of a tensor of 48 int32");

// Whether the sections of a state of unknown origin lie in order within `size` bytes, with whole words in
// the first, because decoders ask of a word only whether its first byte is there. Its lanes are another
// matter.
AICR_HOST_DEVICE inline bool sections_are_safe(const StreamState& state, int64_t size) {
  return (state.lane_count == kNarrowLanes || state.lane_count == kWideLanes) && 0 <= state.word &&
         state.word <= state.words_end && (state.words_end - state.word) % 2 == 0 &&
         state.words_end <= state.raw_end && state.raw_end <= state.end && state.end <= size &&
         0 <= state.raw_bit && 0 <= state.escape_bit &&
         state.raw_bit <= 8 * (state.raw_end - state.words_end) &&
         state.escape_bit <= 8 * (state.end - state.raw_end);
}

AICR_HOST_DEVICE inline bool lane_is_safe(uint32_t lane) {
  return lane >= kStateLow && lane < kStateHigh;
}

// Whether a state leads to no access outside of `size` bytes, nor of a table.
AICR_HOST_DEVICE inline bool is_safe(const StreamState& state, int64_t size) {
  if (!sections_are_safe(state, size)) return false;
  for (int lane = 0; lane < state.lane_count; ++lane) {
    if (!lane_is_safe(state.lanes[lane])) return false;
  }
  return true;
}

}  // namespace aicr
