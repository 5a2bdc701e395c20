// Decoding of rANS streams: the symbols and faults of common/rans_stream.hpp, and nothing else.
//
// Begin, end: a thread a stream.
//
// Step: two warps take one stream through one segment. One has the lanes (rans_lanes.cuh), and notes which
// slots they are in; the other one makes symbols of the slots (rans_symbols.cuh), 1024 behind it. So what the
// lanes do not wait for is not in their way, and of two faults the same one is found as on the CPU: words
// that are missing show after 1024 symbols and before the first of them.
//
// Lanes: with 8 there are four of each, which do the same. A ballot tells who takes a word, and the bits
// below its own in it which one. With 8 lanes most rounds take none, so the table is looked up before that is
// known, and again if a word came in; rounds, and with 32 lanes groups, of nothing but table 0, if that is a
// skip table, are passed over. Words are in shared memory before they are due.
//
// Symbols: 128 at a time, four to a lane. Prefix sums place raw bits, where there are any; escapes, which are
// rare, are read by one lane after the other; then the checksum takes the symbols up.
//
// Memory: data, indices and tables are read through the read-only cache; words and slots are in shared
// memory, 6.5 KiB, and of few streams what slots do to states, too, 64 KiB. Nothing outside the sections of
// the stream is read, whatever it holds. Words and bits may lie at any address, so they are read byte by
// byte. Indices are looked at on the way; one that names no table is the fault of the stream in the end.
//
// Determinism: integers only, no atomics.
#include "cuda/rans_decode.cuh"

#include <climits>

#include "cuda/async_copy.cuh"
#include "cuda/launch.cuh"
#include "cuda/rans_lanes.cuh"
#include "cuda/rans_symbols.cuh"

namespace aicr {
namespace {

// Of so many streams each has the tables of a set in its own shared memory.
constexpr int64_t kFewStreams = 256;
constexpr size_t kNearBytes = kNearTables * kBuckets * sizeof(uint64_t);
constexpr int kThreads = 128;

// Bytes from `at` to `end`, none of which need be there.
struct HeaderReader {
  const uint8_t* at;
  const uint8_t* end;
  StreamFault fault = StreamFault::kNone;

  __device__ uint32_t u8() {
    if (at == end) {
      fault = StreamFault::kHeaderCut;
      return 0;
    }
    return *at++;
  }

  __device__ uint32_t u32() {
    uint32_t value = 0;
    for (int shift = 0; shift < 32 && fault == StreamFault::kNone; shift += 8) value |= u8() << shift;
    return value;
  }

  // See ByteReader.
  __device__ uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 35 && fault == StreamFault::kNone; shift += 7) {
      const uint32_t byte = u8();
      if (fault != StreamFault::kNone) return 0;
      value |= uint64_t{byte & 127} << shift;
      if (byte < 128) {
        if (byte == 0 && shift > 0) break;
        return value;
      }
    }
    if (fault == StreamFault::kNone) fault = StreamFault::kLength;
    return 0;
  }
};

__device__ StreamFault read_header(const uint8_t* data, int64_t begin, int64_t end, StreamState& state) {
  HeaderReader reader{data + begin, data + end};
  state.lane_count = static_cast<int32_t>(reader.u8());
  if (reader.fault != StreamFault::kNone) return reader.fault;
  if (state.lane_count != kNarrowLanes && state.lane_count != kWideLanes) return StreamFault::kLanes;
  const uint64_t words = reader.varint(), raw_bytes = reader.varint();
  if (reader.fault != StreamFault::kNone) return reader.fault;
  for (int lane = 0; lane < state.lane_count; ++lane) {
    state.lanes[lane] = reader.u32();
    if (reader.fault != StreamFault::kNone) return reader.fault;
    if (!lane_is_safe(state.lanes[lane])) return StreamFault::kFirstState;
  }
  if (2 * words + raw_bytes > static_cast<uint64_t>(reader.end - reader.at)) return StreamFault::kSections;
  state.word = reader.at - data;
  state.words_end = state.word + 2 * static_cast<int64_t>(words);
  state.raw_end = state.words_end + static_cast<int64_t>(raw_bytes);
  state.end = end;
  return StreamFault::kNone;
}

__global__ void __launch_bounds__(kThreads)
    rans_begin_kernel(const uint8_t* data, int64_t size, const int64_t* ends, int64_t streams,
                      StreamState* rows) {
  const int64_t s = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (s >= streams) return;
  const int64_t begin = s > 0 ? ends[s - 1] : 0, end = ends[s];
  StreamState& row = rows[s];
  row = StreamState{};
  const bool rising = 0 <= begin && begin <= end && end <= size;
  const StreamFault fault = rising ? read_header(data, begin, end, row) : StreamFault::kEnds;
  if (fault == StreamFault::kNone) return;
  row = StreamState{};
  row.fault = fault;
}

__device__ bool is_known(StreamFault fault) {
  return 0 <= static_cast<int32_t>(fault) && static_cast<size_t>(fault) < kStreamFaultCount;
}

// What the caller has done wrong, for all streams.
__device__ StreamFault refuse_call(const RansTablesCuda& tables, int lane) {
  if (tables.splits_rise == 0) return StreamFault::kSplits;
  return tables_are_valid(tables, lane) ? StreamFault::kNone : StreamFault::kTables;
}

// And for one of them; indices are looked at later.
__device__ StreamFault refuse_stream(const RansStepCuda& task, const StreamState& row, int lane) {
  if (!is_known(row.fault)) return StreamFault::kState;
  if (row.fault != StreamFault::kNone) return row.fault;
  if (!sections_are_safe(row, task.size)) return StreamFault::kState;
  const bool safe = lane >= row.lane_count || lane_is_safe(row.lanes[lane]);
  return __all_sync(kAll, safe) != 0 ? StreamFault::kNone : StreamFault::kState;
}

template <typename Half>
__device__ StreamFault run_half(Half half, StreamState& row) {
  const StreamFault fault = half.run();
  if (fault == StreamFault::kNone) half.save(row);
  return fault;
}

template <typename Steps>
__device__ StreamFault run_lanes(const RansStepCuda& task, StepMemory& memory, const Steps& steps,
                                 StreamState& row, const Part& part, int lane) {
  if (row.lane_count == kWideLanes) {
    return run_half(Lanes<kWideLanes, Steps>(task, memory, steps, row, part, lane), row);
  }
  return run_half(Lanes<kNarrowLanes, Steps>(task, memory, steps, row, part, lane), row);
}

// A block a stream. With `kFew`, sets of up to kNearTables tables go to shared memory, where a look-up takes
// less time; for many streams that would be too much of it.
template <bool kFew>
__global__ void __launch_bounds__(kStepThreads, 12) rans_step_kernel(RansStepCuda task) {
  __shared__ StepMemory memory;
  AICR_DYNAMIC_SHARED(uint64_t, near_steps);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const int64_t s = blockIdx.x;
  StreamState& row = task.rows[s];
  StreamFault fault = refuse_call(*task.tables, lane);
  // Splits that make no sense do not say whose a symbol is: then all streams share them.
  const bool shared = fault == StreamFault::kSplits;
  const int64_t first = shared ? s * task.count / task.streams : task.splits[s];
  const int64_t last = shared ? (s + 1) * task.count / task.streams : task.splits[s + 1];
  if (fault == StreamFault::kNone) {
    fault = refuse_stream(task, row, lane);
  } else if (row.fault != StreamFault::kNone && is_known(row.fault)) {
    fault = row.fault;
  }
  const bool tried = fault == StreamFault::kNone;
  const bool near = kFew && tried && task.tables->tables <= kNearTables;
  if (near) {
    const int pairs = task.tables->tables * kBuckets / 2;
    for (int i = thread; i < pairs; i += kStepThreads) {
      copy_async<16>(near_steps + 2 * i, &task.tables->step[0][0] + 2 * i);
    }
    commit_copies();
    wait_for_copies<0>();
  }
  if (thread < 2) memory.lanes_fault[thread] = memory.symbols_fault[thread] = StreamFault::kNone;
  __syncthreads();
  if (tried) {
    const Part part{task.index + first, task.symbols + first, last - first};
    if (thread >= kWarp) {
      fault = run_half(Symbols(task, memory, row, part, lane), row);
    } else if (near) {
      fault = run_lanes(task, memory, NearSteps(near_steps), row, part, lane);
    } else {
      fault = run_lanes(task, memory, FarSteps(*task.tables), row, part, lane);
    }
    if (fault == StreamFault::kNone) return;
  }
  bool named = true;
  for (int64_t i = first + thread; i < last; i += kStepThreads) {
    named = named && task.index[i] < task.tables->tables;
    task.symbols[i] = 0;
  }
  // The caller's mistake comes before what is wrong with the stream.
  if (__syncthreads_and(named) == 0 && tried) fault = StreamFault::kIndex;
  if (thread == 0) row.fault = fault;
}

__device__ bool is_used_up(const Bits& bits) {
  const int64_t left = bits.size - bits.position;
  return left < 8 && (left == 0 || bits.section[bits.position >> 3] >> (bits.position & 7) == 0);
}

// See RansReader::end.
__device__ StreamFault fault_at_end(const StreamState& row, const uint8_t* data, int64_t size) {
  if (!is_known(row.fault)) return StreamFault::kState;
  if (row.fault != StreamFault::kNone) return row.fault;
  if (!is_safe(row, size)) return StreamFault::kState;
  const Bits raw{data + row.words_end, 8 * (row.raw_end - row.words_end), row.raw_bit};
  const Bits escapes{data + row.raw_end, 8 * (row.end - row.raw_end), row.escape_bit};
  if (row.word != row.words_end || !is_used_up(raw) || !is_used_up(escapes)) return StreamFault::kSurplus;
  bool same = true;
  for (int lane = 0; lane < row.lane_count; ++lane) {
    const uint32_t last = row.lanes[lane];
    if (last >= (lane < kChecksumLanes ? 2 * kStateLow : kStateLow + 1)) return StreamFault::kLastState;
    same = same && last == last_state(row.crc, lane);
  }
  return same ? StreamFault::kNone : StreamFault::kSymbols;
}

__global__ void __launch_bounds__(kThreads)
    rans_end_kernel(const StreamState* rows, int64_t streams, const uint8_t* data, int64_t size,
                    int32_t* faults) {
  const int64_t s = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (s < streams) faults[s] = static_cast<int32_t>(fault_at_end(rows[s], data, size));
}

}  // namespace

cudaError_t launch_rans_begin(const uint8_t* data, int64_t size, const int64_t* ends, int64_t streams,
                              StreamState* rows, cudaStream_t stream) {
  if (streams == 0) return cudaSuccess;
  if (streams > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>((streams + kThreads - 1) / kThreads);
  return AICR_LAUNCH(rans_begin_kernel, blocks, kThreads, 0, stream, data, size, ends, streams, rows);
}

cudaError_t launch_rans_step(const RansStepCuda& task, cudaStream_t stream) {
  if (task.streams == 0) return cudaSuccess;
  if (task.streams > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(task.streams);
  return task.streams <= kFewStreams
             ? AICR_LAUNCH((rans_step_kernel<true>), blocks, kStepThreads, kNearBytes, stream, task)
             : AICR_LAUNCH((rans_step_kernel<false>), blocks, kStepThreads, 0, stream, task);
}

cudaError_t launch_rans_end(const StreamState* rows, int64_t streams, const uint8_t* data, int64_t size,
                            int32_t* faults, cudaStream_t stream) {
  if (streams == 0) return cudaSuccess;
  if (streams > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>((streams + kThreads - 1) / kThreads);
  return AICR_LAUNCH(rans_end_kernel, blocks, kThreads, 0, stream, rows, streams, data, size, faults);
}

}  // namespace aicr
