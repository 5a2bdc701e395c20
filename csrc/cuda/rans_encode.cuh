// The launch interface of encoding on CUDA. No torch here; rans_ops.cpp calls it. Arguments are those of
// aicr_ext/ops/rans.py, all dense.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/rans_format.hpp"
#include "common/stream_error.hpp"
#include "cuda/rans_tables.cuh"

namespace aicr {

// What keeps a stream from being written, in words of the host. Faults of the call stand for all streams.
enum class EncodeProblem : int32_t { kNone, kSplits, kTables, kIndex, kSkip };

// One for each stream, as a row of int64 that the host reads.
struct EncodeReport {
  int64_t problem;
  int64_t segment;
  int64_t position;  // in the stream's part of the segment
  int64_t value;
};

// A stream on its way. All zeros to begin with.
struct EncodeRow {
  int64_t begin;  // symbols of all streams before it, and its own
  int64_t count;
  int64_t raw_bits, escape_bits;
  int64_t words[2];  // with 32 lanes and with 8
  uint32_t states[2][kWideLanes];
  uint32_t crc;
  int32_t lanes;  // what was chosen
};

// A segment, and what all of them share. The memory of a stream is cut from that of all in proportion to its
// symbols.
struct RansEncodeCuda {
  const int16_t* symbols;
  const uint8_t* index;
  int64_t count, segment;
  const int64_t* splits;
  const RansTablesCuda* tables;
  const RansRunsCuda* runs;
  int64_t streams, total;  // total: symbols of all segments
  EncodeRow* rows;
  EncodeReport* reports;   // [streams + 1]; the value of the last one is how many bytes there are
  int64_t entries_before;  // symbols of the segments before this one
  uint8_t* entries;        // [total]
  uint16_t* words[2];      // [total]; the second is null unless both numbers of lanes are tried
  uint32_t* raw;           // [total * 3 / 8 + streams], zeros: 12 bits for each symbol at most
  uint32_t* escapes;       // [total + streams], zeros: 32 bits
};

// What is known of a stream with 32 lanes when it is coded with 8: nothing, because the caller wants 8; how
// many words there are; nothing, because both are coded at once. In the last two it stops where it is no
// longer one for 8 lanes.
enum class EncodeOrder : int32_t { kGiven, kWideFirst, kTogether };

// In this order: place for all segments; split for all; code from the last segment to the first, with 32
// lanes, with 8, or (0) with both; choose; write. `initial` says that the segment is the first to be coded.
cudaError_t launch_rans_place(const RansEncodeCuda& task, cudaStream_t stream);
cudaError_t launch_rans_split(const RansEncodeCuda& task, cudaStream_t stream);
cudaError_t launch_rans_code(const RansEncodeCuda& task, int lanes, bool initial, EncodeOrder order,
                             cudaStream_t stream);
cudaError_t launch_rans_choose(const RansEncodeCuda& task, int lanes, int64_t* ends, cudaStream_t stream);
cudaError_t launch_rans_write(const RansEncodeCuda& task, const int64_t* ends, uint8_t* data,
                              cudaStream_t stream);

}  // namespace aicr
