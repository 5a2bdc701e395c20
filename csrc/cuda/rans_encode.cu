// Encoding of rANS streams: the bytes of common/rans_encoder.hpp.
//
// Place: where a stream's memory begins. It has as many symbols of each segment in front of it as the
// segment's split says, so sums of splits tell, without a scan.
//
// Split: a warp a stream, 128 symbols at a time, four to a lane: table entries, the checksum, and raw and
// escape bits, which prefix sums place. Bits are or-ed into words of zeros, in any order.
//
// Code: a warp a stream, from the last symbol to the first; words are put down from the end of the stream's
// memory backwards, which leaves them in reading order. In a round a ballot tells who gives one, which no
// state depends on. Entries, which are known before, are loaded a group ahead, so what a round waits for is a
// reciprocal multiplication and the cell of the slot.
//
// Choose: one warp says how many lanes a stream has, and where each ends.
//
// Write: a block a stream.
//
// Determinism: integers only; the order in which bits are or-ed does not matter.
#include "cuda/rans_encode.cuh"

#include <climits>

#include "cuda/launch.cuh"
#include "cuda/rans_checksum.cuh"
#include "cuda/rans_warp.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ int own_lane() {
  return static_cast<int>(threadIdx.x % 32);
}

__device__ __forceinline__ bool is_fine(const RansEncodeCuda& task, int64_t s) {
  return task.reports[s].problem == 0;
}

__device__ void report(const RansEncodeCuda& task, int64_t s, EncodeProblem problem, int64_t position,
                       int64_t value) {
  task.reports[s] = {static_cast<int64_t>(problem), task.segment, position, value};
}

// Each stream's words of 32 bits for raw bits and for escapes begin here, counted from those of the first.
__device__ __forceinline__ int64_t raw_place(const EncodeRow& row, int64_t s) {
  return row.begin * 3 / 8 + s;
}
__device__ __forceinline__ int64_t escape_place(const EncodeRow& row, int64_t s) {
  return row.begin + s;
}

__global__ void __launch_bounds__(kThreads) rans_place_kernel(RansEncodeCuda task) {
  const int64_t s = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (s >= task.streams || !is_fine(task, s)) return;
  const int64_t first = task.splits[s], last = task.splits[s + 1];
  const bool rising = 0 <= first && first <= last && last <= task.count && (s > 0 || first == 0) &&
                      (s + 1 < task.streams || last == task.count);
  if (!rising) return report(task, s, EncodeProblem::kSplits, 0, 0);
  task.rows[s].begin += first;
  task.rows[s].count += last - first;
}

// Puts `count` <= 48 bits at a place of memory that has zeros there.
__device__ void put_bits(uint32_t* memory, int64_t position, uint64_t bits, int count) {
  uint32_t* at = memory + (position >> 5);
  const int skipped = static_cast<int>(position & 31);
  if (count == 0) return;
  atomicOr(at, static_cast<uint32_t>(bits << skipped));
  if (skipped + count > 32) atomicOr(at + 1, static_cast<uint32_t>(bits >> (32 - skipped)));
  if (skipped + count > 64) atomicOr(at + 2, static_cast<uint32_t>(bits >> (64 - skipped)));
}

// The first place from `first` to `last` whose index names no table, counted from `first`; -1 if none.
__device__ int64_t unnamed_table(const RansEncodeCuda& task, int64_t first, int64_t last, int lane) {
  for (int64_t i = first; i < last; i += 32) {
    const bool wrong = i + lane < last && task.index[i + lane] >= task.tables->tables;
    const unsigned found = __ballot_sync(kAll, wrong);
    if (found != 0) return i - first + __ffs(static_cast<int>(found)) - 1;
  }
  return -1;
}

__global__ void __launch_bounds__(32, 16) rans_split_kernel(RansEncodeCuda task) {
  const int64_t s = blockIdx.x;
  const int lane = own_lane();
  if (!is_fine(task, s)) return;
  const RansTablesCuda& tables = *task.tables;
  const int64_t first = task.splits[s], last = task.splits[s + 1];
  const bool valid = tables_are_valid(tables, lane);
  const int64_t wrong = valid ? unnamed_table(task, first, last, lane) : -1;
  if (!valid || wrong >= 0) {
    __syncwarp();  // every lane has seen that there was no problem yet
    if (lane == 0) {
      report(task, s, valid ? EncodeProblem::kIndex : EncodeProblem::kTables, max(wrong, int64_t{0}),
             valid ? task.index[first + wrong] : 0);
    }
    return;
  }
  EncodeRow& row = task.rows[s];
  uint32_t* raw = task.raw + raw_place(row, s);
  uint32_t* escapes = task.escapes + escape_place(row, s);
  int64_t raw_bit = row.raw_bits, escape_bit = row.escape_bits;
  WarpChecksum checksum(tables, row.crc, lane);
  for (int64_t begin = first; begin < last; begin += kPiece) {
    const int count = static_cast<int>(last - begin < kPiece ? last - begin : kPiece);
    int32_t symbol[kEach];
    uint32_t escape[kEach];  // of which the code is due, plus 2; or 0
    uint64_t low = 0;
    int low_bits = 0, escape_count = 0, nonzero = kEach;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = kEach * lane + k;
      symbol[k] = 0;
      escape[k] = 0;
      if (i >= count) continue;
      symbol[k] = task.symbols[begin + i];
      const uint32_t info = __ldg(&tables.info[task.index[begin + i]]);
      const int shift = static_cast<int>(info >> kShiftAt & 15),
                regular = static_cast<int>(info >> kRegularAt & 255);
      const int32_t centred = symbol[k] + ((1 << shift) >> 1);
      low |= uint64_t{static_cast<uint32_t>(centred) & ((1u << shift) - 1)} << low_bits;
      low_bits += shift;
      const int32_t entry = (centred >> shift) - static_cast<int16_t>(info & 0xffff);
      const bool within = entry >= 0 && entry < regular;
      task.entries[task.entries_before + begin + i] = static_cast<uint8_t>(within ? entry : kEscapeMark);
      if (within) continue;
      if ((info >> kSkipAt & 1) != 0) {
        nonzero = min(nonzero, k);
        continue;
      }
      escape[k] = (entry < 0 ? static_cast<uint32_t>(-1 - entry) * 2 + 1
                             : static_cast<uint32_t>(entry - regular) * 2) +
                  (1u << kEscapeOrder);
      escape_count += 2 * (31 - __clz(static_cast<int>(escape[k])));
    }
    const unsigned found = __ballot_sync(kAll, nonzero < kEach);
    if (found != 0) {
      if (lane == __ffs(static_cast<int>(found)) - 1) {
        const int i = kEach * lane + nonzero;
        report(task, s, EncodeProblem::kSkip, begin - first + i, task.symbols[begin + i]);
      }
      return;
    }
    const int raw_behind = prefix_sum(low_bits, lane);
    put_bits(raw, raw_bit + raw_behind - low_bits, low, low_bits);
    raw_bit += __shfl_sync(kAll, raw_behind, 31);
    if (__any_sync(kAll, escape_count != 0)) {
      const int behind = prefix_sum(escape_count, lane);
      int64_t position = escape_bit + behind - escape_count;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        if (escape[k] == 0) continue;
        const int log2 = 31 - __clz(static_cast<int>(escape[k]));
        const uint64_t rest = escape[k] & ((1u << log2) - 1);
        put_bits(escapes, position, rest << log2 | 1u << (log2 - kEscapeOrder), 2 * log2);
        position += 2 * log2;
      }
      escape_bit += __shfl_sync(kAll, behind, 31);
    }
    const uint2 packed = make_uint2((symbol[0] & 0xffff) | static_cast<uint32_t>(symbol[1]) << 16,
                                    (symbol[2] & 0xffff) | static_cast<uint32_t>(symbol[3]) << 16);
    if (count == kPiece) {
      checksum.add(packed);
    } else {
      checksum.add(packed, count);
    }
  }
  const uint32_t crc = checksum.value();
  if (lane != 0) return;
  row.raw_bits = raw_bit;
  row.escape_bits = escape_bit;
  row.crc = crc;
}

// The slot of a position in a table; see RansRunsCuda.
__device__ __forceinline__ uint32_t slot_of(const RansRunsCuda& runs, uint32_t table, uint32_t position) {
  constexpr uint32_t kDifference = kProbabilityOne - 1;
  const uint64_t cell = __ldg(&runs.cell[table][position >> kCellBits]);
  const auto low = static_cast<uint32_t>(cell), high = static_cast<uint32_t>(cell >> 32);
  const uint32_t second_begin = __funnelshift_r(low, high, 28) & 0xffff;
  uint32_t difference = position < second_begin ? low : low >> 14;
  if (uint32_t next = high >> 16; next != 0) {
    for (;; ++next) {
      const uint32_t run = __ldg(&runs.run[table][next]);
      if (position < run >> 16) break;
      difference = run;
    }
  }
  return (position + difference) & kDifference;
}

// What a lane codes in one group, all of which is known before its state is.
struct EncodeGroup {
  uint32_t indices;
  uint64_t entry[kRounds];  // 0 for what changes no state
};

template <int kLanes>
__global__ void __launch_bounds__(32, 16)
    rans_code_kernel(RansEncodeCuda task, bool initial, bool automatic) {
  constexpr int kVariant = kLanes == kWideLanes ? 0 : 1, kGroup = kRounds * kLanes;
  const int64_t s = blockIdx.x;
  const int lane = own_lane();
  if (!is_fine(task, s)) return;
  EncodeRow& row = task.rows[s];
  // See RansEncoder::finish.
  if (automatic && kVariant == 1 && row.words[0] >= static_cast<int64_t>(kWideFromWords + 2 * kWideLanes))
    return;
  const RansTablesCuda& tables = *task.tables;
  const RansRunsCuda& runs = *task.runs;
  const int64_t first = task.splits[s], count = task.splits[s + 1] - first;
  const uint8_t* index = task.index + first;
  const uint8_t* entries = task.entries + task.entries_before + first;
  const bool aligned = is_aligned<uint32_t>(index) && is_aligned<uint32_t>(entries);
  uint32_t state = lane >= kLanes ? 0 : initial ? last_state(row.crc, lane) : row.states[kVariant][lane];
  uint16_t* word =
      task.words[kVariant] + row.begin + row.count - row.words[kVariant];  // the one put down last
  const uint16_t* const end = word;
  const unsigned before = (1u << lane) - 1;
  const auto load = [&](int64_t group) {
    EncodeGroup loaded;
    const int64_t at = group + kRounds * lane;
    const bool there = lane < kLanes && group >= 0;
    loaded.indices = there ? four_indices(index + at, index + count, aligned) : 0;
    const uint32_t numbers = there ? four_indices(entries + at, entries + count, aligned) : 0;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const uint32_t table = loaded.indices >> 8 * round & 255, number = numbers >> 8 * round & 255;
      const bool active = there && at + round < count && (__ldg(&tables.info[table]) >> kSkipAt & 1) == 0;
      loaded.entry[round] = active ? __ldg(&runs.entry[table][number]) : 0;
    }
    return loaded;
  };
  int64_t group = (count + kGroup - 1) / kGroup * kGroup - kGroup;
  EncodeGroup next = load(group);
  for (; group >= 0; group -= kGroup) {
    const EncodeGroup now = next;
    next = load(group - kGroup);
#pragma unroll
    for (int round = kRounds - 1; round >= 0; --round) {
      const auto reciprocal = static_cast<uint32_t>(now.entry[round]);
      const auto rest = static_cast<uint32_t>(now.entry[round] >> 32);
      const uint32_t frequency = rest >> 18, begin = rest & (kProbabilityOne - 1);
      const bool active = now.entry[round] != 0;
      const bool full = active && state >= frequency << 17;
      const unsigned givers = __ballot_sync(kAll, full);
      word -= __popc(givers);
      if (full) {
        word[__popc(givers & before)] = static_cast<uint16_t>(state);
        state >>= kWordBits;
      }
      if (active) {
        const uint32_t quotient = __umulhi(2 * state, reciprocal) >> (rest >> 14 & 15);
        const uint32_t rank = state - quotient * frequency;
        const uint32_t slot = slot_of(runs, now.indices >> 8 * round & 255, begin + rank);
        state = quotient << kProbabilityBits | slot;
      }
    }
  }
  if (lane < kLanes) row.states[kVariant][lane] = state;
  __syncwarp();  // every lane has read the number of words
  if (lane == 0) row.words[kVariant] += end - word;
}

__device__ int varint_size(uint64_t value) {
  int size = 1;
  for (; value >= 128; value >>= 7) ++size;
  return size;
}

__device__ int64_t bytes_of(int64_t bits) {
  return (bits + 7) / 8;
}

__device__ int64_t header_size(const EncodeRow& row) {
  return 1 + varint_size(static_cast<uint64_t>(row.words[row.lanes == kNarrowLanes])) +
         varint_size(static_cast<uint64_t>(bytes_of(row.raw_bits))) + 4 * row.lanes;
}

__global__ void __launch_bounds__(32) rans_choose_kernel(RansEncodeCuda task, int lanes, int64_t* ends) {
  const int lane = own_lane();
  int64_t before = 0;
  for (int64_t tile = 0; tile < task.streams; tile += 32) {
    const int64_t s = tile + lane;
    int64_t size = 0;
    if (s < task.streams && is_fine(task, s)) {
      EncodeRow& row = task.rows[s];
      const auto limit = static_cast<int64_t>(kWideFromWords);
      const bool small = row.words[0] < limit + 2 * kWideLanes && row.words[1] < limit;
      row.lanes = lanes != 0 ? lanes : small ? kNarrowLanes : kWideLanes;
      size = header_size(row) + 2 * row.words[row.lanes == kNarrowLanes] + bytes_of(row.raw_bits) +
             bytes_of(row.escape_bits);
    }
    size = prefix_sum(size, lane);
    if (s < task.streams) ends[s] = before + size;
    before += __shfl_sync(kAll, size, 31);
  }
  if (lane == 0) task.reports[task.streams].value = before;
}

__device__ uint8_t* put_varint(uint8_t* at, uint64_t value) {
  for (; value >= 128; value >>= 7) *at++ = static_cast<uint8_t>(value | 128);
  *at++ = static_cast<uint8_t>(value);
  return at;
}

__global__ void __launch_bounds__(kThreads)
    rans_write_kernel(RansEncodeCuda task, const int64_t* ends, uint8_t* data) {
  const int64_t s = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const EncodeRow& row = task.rows[s];
  const int variant = row.lanes == kNarrowLanes;
  const int64_t words = row.words[variant], raw_bytes = bytes_of(row.raw_bits);
  uint8_t* at = data + (s > 0 ? ends[s - 1] : 0);
  if (thread == 0) {
    uint8_t* head = at;
    *head++ = static_cast<uint8_t>(row.lanes);
    head = put_varint(head, static_cast<uint64_t>(words));
    put_varint(head, static_cast<uint64_t>(raw_bytes));
  }
  at += header_size(row) - 4 * row.lanes;
  for (int i = thread; i < 4 * row.lanes; i += kThreads) {
    at[i] = static_cast<uint8_t>(row.states[variant][i / 4] >> 8 * (i % 4));
  }
  at += 4 * row.lanes;
  // Devices are little-endian, as the stream is.
  const auto copy = [&](const void* from, int64_t bytes) {
    const auto* source = static_cast<const uint8_t*>(from);
    for (int64_t i = thread; i < bytes; i += kThreads) at[i] = source[i];
    at += bytes;
  };
  copy(task.words[variant] + row.begin + row.count - words, 2 * words);
  copy(task.raw + raw_place(row, s), raw_bytes);
  copy(task.escapes + escape_place(row, s), bytes_of(row.escape_bits));
}

}  // namespace

cudaError_t launch_rans_place(const RansEncodeCuda& task, cudaStream_t stream) {
  if (task.streams > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>((task.streams + kThreads - 1) / kThreads);
  return AICR_LAUNCH(rans_place_kernel, blocks, kThreads, 0, stream, task);
}

cudaError_t launch_rans_split(const RansEncodeCuda& task, cudaStream_t stream) {
  return AICR_LAUNCH(rans_split_kernel, static_cast<unsigned>(task.streams), 32, 0, stream, task);
}

cudaError_t launch_rans_code(const RansEncodeCuda& task, int lanes, bool initial, bool automatic,
                             cudaStream_t stream) {
  const auto streams = static_cast<unsigned>(task.streams);
  return lanes == kWideLanes
             ? AICR_LAUNCH((rans_code_kernel<kWideLanes>), streams, 32, 0, stream, task, initial, automatic)
             : AICR_LAUNCH((rans_code_kernel<kNarrowLanes>), streams, 32, 0, stream, task, initial,
                           automatic);
}

cudaError_t launch_rans_choose(const RansEncodeCuda& task, int lanes, int64_t* ends, cudaStream_t stream) {
  return AICR_LAUNCH(rans_choose_kernel, 1, 32, 0, stream, task, lanes, ends);
}

cudaError_t launch_rans_write(const RansEncodeCuda& task, const int64_t* ends, uint8_t* data,
                              cudaStream_t stream) {
  return AICR_LAUNCH(rans_write_kernel, static_cast<unsigned>(task.streams), kThreads, 0, stream, task, ends,
                     data);
}

}  // namespace aicr
