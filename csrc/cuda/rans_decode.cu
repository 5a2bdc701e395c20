// Decoding of rANS streams: the symbols and faults of common/rans_stream.hpp, and nothing else.
//
// Begin, end: a thread a stream.
//
// Step: a warp takes one stream through one segment. With 32 lanes each is a lane of the warp; with 8 the
// others wait. In a round a ballot tells who takes a word, and the bits below its own in it which one.
//
// Order: 1024 symbols have their entries made before the first of them becomes a symbol, as on the CPU, so
// that of two faults the same one is found. Then 128 at a time become symbols, four to a lane: prefix sums
// place the raw bits; escapes, which are rare, are read by one lane after the other; then the checksum takes
// them up.
//
// Memory: data, indices and tables are read through the read-only cache; entries are in shared memory,
// 1 KiB. Nothing outside the sections of the stream is read, whatever it holds. Words and bits may lie at
// any address, so they are read byte by byte.
//
// Determinism: integers only, no atomics.
#include "cuda/rans_decode.cuh"

#include <climits>

#include "common/rans_kernels.hpp"
#include "cuda/launch.cuh"
#include "cuda/rans_checksum.cuh"
#include "cuda/rans_warp.cuh"

namespace aicr {
namespace {

constexpr int kTogether = 8 * kPiece;  // of which entries are made; kChunk of the CPU's
constexpr int kThreads = 128;

static_assert(kTogether == kChunk, "faults are found in the order of the CPU");

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

// `count` <= 17 bits from `position` on, all of which are in the section.
__device__ __forceinline__ uint32_t bits_at(const uint8_t* section, int64_t position, int count) {
  if (count == 0) return 0;
  const uint8_t* at = section + (position >> 3);
  const int skipped = static_cast<int>(position & 7), needed = skipped + count;
  uint32_t bits = __ldg(at);
  if (needed > 8) bits |= static_cast<uint32_t>(__ldg(at + 1)) << 8;
  if (needed > 16) bits |= static_cast<uint32_t>(__ldg(at + 2)) << 16;
  return bits >> skipped & ((1u << count) - 1);
}

// A section of bits, and the next of them.
struct Bits {
  const uint8_t* section;
  int64_t size;
  int64_t position;
};

// The distance that an escape says; see RansReader::get_escape.
__device__ uint32_t read_escape(Bits& escapes, StreamFault& fault) {
  int zeros = 0;
  for (;; ++zeros) {
    if (zeros > kMaxEscapePrefix) {
      fault = StreamFault::kEscape;
      return 0;
    }
    if (escapes.position >= escapes.size) {
      fault = StreamFault::kBits;
      return 0;
    }
    if (bits_at(escapes.section, escapes.position++, 1) != 0) break;
  }
  const int count = zeros + kEscapeOrder;
  if (escapes.size - escapes.position < count) {
    fault = StreamFault::kBits;
    return 0;
  }
  const uint32_t rest = bits_at(escapes.section, escapes.position, count);
  escapes.position += count;
  return (1u << count) + rest - (1u << kEscapeOrder);
}

// A stream in the registers of a warp.
class WarpStream {
 public:
  __device__ WarpStream(const RansStepCuda& task, const StreamState& row, int lane)
      : task_(task),
        tables_(*task.tables),
        lane_(lane),
        lanes_(row.lane_count),
        state_(lane < row.lane_count ? row.lanes[lane] : 0),
        word_(row.word),
        words_end_(row.words_end),
        raw_{task.data + row.words_end, 8 * (row.raw_end - row.words_end), row.raw_bit},
        escapes_{task.data + row.raw_end, 8 * (row.end - row.raw_end), row.escape_bit},
        checksum_(*task.tables, row.crc, lane) {}

  // Decodes symbols from `first` to `last` of the segment.
  __device__ StreamFault run(int64_t first, int64_t last, uint8_t* entries) {
    for (int64_t begin = first; begin < last; begin += kTogether) {
      const int count = static_cast<int>(last - begin < kTogether ? last - begin : kTogether);
      make_entries(task_.index + begin, count, entries);
      __syncwarp();
      if (word_ > words_end_) return StreamFault::kWords;
      for (int done = 0; done < count; done += kPiece) {
        const int piece = min(kPiece, count - done);
        const StreamFault fault = make_symbols(begin + done, piece, entries + done);
        if (fault != StreamFault::kNone) return fault;
      }
      __syncwarp();
    }
    return StreamFault::kNone;
  }

  __device__ void save(StreamState& row) {
    const uint32_t crc = checksum_.value();
    if (lane_ < lanes_) row.lanes[lane_] = state_;
    if (lane_ != 0) return;
    row.word = word_;
    row.raw_bit = raw_.position;
    row.escape_bit = escapes_.position;
    row.crc = crc;
  }

 private:
  __device__ void make_entries(const uint8_t* index, int count, uint8_t* entries) {
    const unsigned before = (1u << lane_) - 1;
    for (int group = 0; group < count; group += kRounds * lanes_) {
#pragma unroll
      for (int round = 0; round < kRounds; ++round) {
        const int i = group + kRounds * lane_ + round;
        const bool active = lane_ < lanes_ && i < count;
        if (active) {
          const uint32_t slot = state_ & (kProbabilityOne - 1);
          const uint64_t bucket = __ldg(&tables_.decode[__ldg(index + i)][slot >> kBucketBits]);
          const UnpackedSlot unpacked = unpack_bucket(bucket, slot);
          entries[i] = static_cast<uint8_t>(unpacked.number);
          state_ = unpacked.frequency * ((state_ >> kProbabilityBits) + 1) + unpacked.offset;
        }
        const bool due = active && state_ < kStateLow;
        const unsigned takers = __ballot_sync(kAll, due);
        if (due) {
          const int64_t at = word_ + 2 * __popc(takers & before);
          uint32_t word = 0;
          if (at < words_end_)
            word = __ldg(task_.data + at) | static_cast<uint32_t>(__ldg(task_.data + at + 1)) << 8;
          state_ = state_ << kWordBits | word;
        }
        word_ += 2 * __popc(takers);
      }
    }
  }

  // The symbols `begin` to `begin + count` <= kPiece of the segment.
  __device__ StreamFault make_symbols(int64_t begin, int count, const uint8_t* entries) {
    int32_t offset[kEach], quotient[kEach], symbol[kEach];
    int shift[kEach], regular[kEach];
    bool escape[kEach], any_escape = false;
    int32_t bits = 0;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = kEach * lane_ + k;
      const bool there = i < count;
      const uint32_t info = there ? __ldg(&tables_.info[__ldg(task_.index + begin + i)]) : 0;
      const int entry = there ? entries[i] : 0;
      offset[k] = static_cast<int16_t>(info & 0xffff);
      regular[k] = static_cast<int>(info >> kRegularAt & 255);
      shift[k] = static_cast<int>(info >> kShiftAt & 15);
      escape[k] = entry == kEscapeMark;
      any_escape = any_escape || escape[k];
      quotient[k] = offset[k] + entry;
      bits += shift[k];
    }
    const int32_t behind = prefix_sum(bits, lane_);  // the raw bits up to this lane's last

    StreamFault escape_fault = StreamFault::kNone;  // of the lane's first escape that has one
    int faulty_escape = kEach;
    for (unsigned waiting = __ballot_sync(kAll, any_escape); waiting != 0; waiting &= waiting - 1) {
      const int turn = __ffs(static_cast<int>(waiting)) - 1;
      if (lane_ == turn) {
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
          if (!escape[k] || escape_fault != StreamFault::kNone) continue;
          const uint32_t distance = read_escape(escapes_, escape_fault);
          if (escape_fault != StreamFault::kNone) faulty_escape = k;
          const auto steps = static_cast<int32_t>(distance >> 1);
          quotient[k] = (distance & 1) != 0 ? offset[k] - 1 - steps : offset[k] + regular[k] + steps;
        }
      }
      escapes_.position = __shfl_sync(kAll, escapes_.position, turn);
    }

    StreamFault fault = StreamFault::kNone;
    int64_t position = raw_.position + behind - bits;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = kEach * lane_ + k;
      symbol[k] = 0;
      if (i >= count || fault != StreamFault::kNone) continue;
      if (k == faulty_escape) {
        fault = escape_fault;
      } else if (position + shift[k] > raw_.size) {
        fault = StreamFault::kBits;
      } else {
        const auto low = static_cast<int32_t>(bits_at(raw_.section, position, shift[k]));
        symbol[k] = quotient[k] * (1 << shift[k]) + low - ((1 << shift[k]) >> 1);
        if (symbol[k] != static_cast<int16_t>(symbol[k])) fault = StreamFault::kSymbol;
        task_.symbols[begin + i] = static_cast<int16_t>(symbol[k]);
      }
      position += shift[k];
    }
    const unsigned faulty = __ballot_sync(kAll, fault != StreamFault::kNone);
    if (faulty != 0) {
      const int first = __ffs(static_cast<int>(faulty)) - 1;
      return static_cast<StreamFault>(__shfl_sync(kAll, static_cast<int32_t>(fault), first));
    }
    raw_.position += __shfl_sync(kAll, behind, 31);
    checksum_.add(symbol, count);
    return StreamFault::kNone;
  }

  const RansStepCuda& task_;
  const RansTablesCuda& tables_;
  int lane_, lanes_;
  uint32_t state_;
  int64_t word_, words_end_;
  Bits raw_, escapes_;
  WarpChecksum checksum_;
};

// What the caller has done wrong, for all streams.
__device__ StreamFault refuse_call(const RansTablesCuda& tables, int lane) {
  if (tables.splits_rise == 0) return StreamFault::kSplits;
  return tables_are_valid(tables, lane) ? StreamFault::kNone : StreamFault::kTables;
}

// And for one of them.
__device__ StreamFault refuse_stream(const RansStepCuda& task, const StreamState& row, int64_t first,
                                     int64_t last, int lane) {
  if (!is_known(row.fault)) return StreamFault::kState;
  if (row.fault != StreamFault::kNone) return row.fault;
  if (!sections_are_safe(row, task.size)) return StreamFault::kState;
  const bool safe = lane >= row.lane_count || lane_is_safe(row.lanes[lane]);
  if (__all_sync(kAll, safe) == 0) return StreamFault::kState;
  bool named = true;
  for (int64_t i = first + lane; i < last; i += 32) named = named && task.index[i] < task.tables->tables;
  return __all_sync(kAll, named) == 0 ? StreamFault::kIndex : StreamFault::kNone;
}

// Streams are few, so a warp may have many registers.
__global__ void __launch_bounds__(32, 16) rans_step_kernel(RansStepCuda task) {
  __shared__ uint8_t entries[kTogether];
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t s = blockIdx.x;
  StreamState& row = task.rows[s];
  StreamFault fault = refuse_call(*task.tables, lane);
  // Splits that make no sense do not say whose a symbol is: then all streams share them.
  const bool shared = fault == StreamFault::kSplits;
  const int64_t first = shared ? s * task.count / task.streams : task.splits[s];
  const int64_t last = shared ? (s + 1) * task.count / task.streams : task.splits[s + 1];
  if (fault == StreamFault::kNone) {
    fault = refuse_stream(task, row, first, last, lane);
  } else if (row.fault != StreamFault::kNone && is_known(row.fault)) {
    fault = row.fault;
  }
  if (fault == StreamFault::kNone) {
    WarpStream stream(task, row, lane);
    fault = stream.run(first, last, entries);
    if (fault == StreamFault::kNone) {
      stream.save(row);
      return;
    }
  }
  __syncwarp();  // what was written before is overwritten by other lanes
  for (int64_t i = first + lane; i < last; i += 32) task.symbols[i] = 0;
  if (lane == 0) row.fault = fault;
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
  return AICR_LAUNCH(rans_step_kernel, static_cast<unsigned>(task.streams), 32, 0, stream, task);
}

cudaError_t launch_rans_end(const StreamState* rows, int64_t streams, const uint8_t* data, int64_t size,
                            int32_t* faults, cudaStream_t stream) {
  if (streams == 0) return cudaSuccess;
  if (streams > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>((streams + kThreads - 1) / kThreads);
  return AICR_LAUNCH(rans_end_kernel, blocks, kThreads, 0, stream, rows, streams, data, size, faults);
}

}  // namespace aicr
