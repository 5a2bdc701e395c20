// Encoding of rANS streams: the bytes of common/rans_encoder.hpp.
//
// Place: where a stream's memory begins. It has as many symbols of each segment in front of it as the
// segment's split says, so sums of splits tell, without a scan.
//
// Split: symbols become entries and bits, in rans_split.cu.
//
// Code: a warp a stream and number of lanes, from the last symbol to the first; words are put down from the
// end of the stream's memory backwards, which leaves them in reading order. In a round a ballot tells who
// gives one, which no state depends on. Entries, which are known before, are loaded a group ahead, so what a
// round waits for is a multiplication by a reciprocal and the cell of the slot. Rounds that change no state
// are passed over. Where lanes go by size, few streams are coded with both numbers side by side, and many
// with 8 only if 32 led to a small one.
//
// Choose: one warp says how many lanes a stream has, and where each ends.
//
// Write: a block a stream.
//
// Determinism: integers only, no atomics.
#include "cuda/rans_encode.cuh"

#include <climits>

#include "cuda/launch.cuh"
#include "cuda/rans_stream_memory.cuh"
#include "cuda/rans_warp.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 128;
constexpr int kWriteThreads = 512;

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

// Which slot a position has in a table; see RansRunsCuda. All lanes take part, but only for those that are
// `active` the position, and what it leads to, means anything.
__device__ __forceinline__ uint32_t slot_of(const RansRunsCuda& runs, uint32_t table, uint32_t position,
                                            bool active) {
  constexpr uint32_t kSlots = kProbabilityOne - 1;
  const uint64_t cell = __ldg(&runs.cell[0][0] + (table * kCells + ((position & kSlots) >> kCellBits)));
  const auto low = static_cast<uint32_t>(cell), high = static_cast<uint32_t>(cell >> 32);
  const bool second = position >= (__funnelshift_r(low, high, 28) & 0xffff);
  uint32_t difference = second ? low >> 14 : low;
  const bool more = active && second && high >> 16 != 0;
  if (__any_sync(kAll, more)) {
    for (uint32_t next = high >> 16; more; ++next) {
      const uint32_t run = __ldg(&runs.run[table][next]);
      if (position < run >> 16) break;
      difference = run;
    }
  }
  return (position + difference) & kSlots;
}

// The lanes of a stream in the registers of a warp, with 8 lanes four of each.
template <int kLanes>
class EncodeLanes {
 public:
  static constexpr int kVariant = kLanes == kWideLanes ? 0 : 1;

  __device__ EncodeLanes(const RansEncodeCuda& task, const EncodeRow& row, int64_t s, bool initial, int lane)
      : runs_(registered(task.runs)),
        index_(task.index + task.splits[s]),
        numbers_(task.entries + task.entries_before + task.splits[s]),
        size_(task.splits[s + 1] - task.splits[s]),
        groups_((size_ + kGroup - 1) / kGroup),
        place_((groups_ - 1) * kGroup + kRounds * (lane % kLanes)),
        lane_(lane),
        own_(lane % kLanes),
        aligned_(is_aligned<uint32_t>(index_) && is_aligned<uint32_t>(numbers_)),
        state_(initial ? last_state(row.crc, own_) : row.states[kVariant][own_]),
        words_end_(task.words[kVariant] + row.begin + row.count),
        word_(words_end_ - row.words[kVariant]) {}

  // Codes the segment, from the last group to the first, or until there are `limit` words. What a group needs
  // that does not depend on states is loaded while others are coded.
  __device__ void run(int64_t limit) {
    int64_t left = groups_;
    load_numbers();
    load_group();
    load_numbers();
    for (; left > 0 && words() < limit; --left) {
      const Group now = coming_;
      load_group();
      load_numbers();
      code(now);
    }
  }

  __device__ void save(EncodeRow& row) const {
    if (lane_ < kLanes) row.states[kVariant][lane_] = state_;
    if (lane_ == 0) row.words[kVariant] = words();
  }

 private:
  static constexpr int kGroup = kRounds * kLanes;
  static constexpr unsigned kGivers = kLanes == kWarp ? kAll : (1u << kLanes) - 1;

  struct Group {
    uint32_t indices;
    uint64_t entry[kRounds];  // 0 for what changes no state
  };

  __device__ int64_t words() const { return words_end_ - word_; }

  __device__ void load_numbers() {
    coming_indices_ = coming_numbers_ = 0;
    coming_count_ = 0;
    if (groups_ == 0) return;
    --groups_;
    coming_indices_ = four_indices(index_, place_, size_, aligned_);
    coming_numbers_ = four_indices(numbers_, place_, size_, aligned_);
    const int64_t there = size_ - place_;
    coming_count_ = there < kRounds ? static_cast<int>(there) : kRounds;
    place_ -= kGroup;
  }

  // The entries of the numbers that were loaded last.
  __device__ void load_group() {
    coming_.indices = coming_indices_;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const auto byte = static_cast<unsigned>(round);
      const uint32_t table = byte_of(coming_indices_, byte), number = byte_of(coming_numbers_, byte);
      const uint64_t entry = __ldg(&runs_->entry[0][0] + (table * kMaxEntries + number));
      coming_.entry[round] = round < coming_count_ ? entry : 0;
    }
  }

  __device__ __forceinline__ void code(const Group& group) {
    bool busy[kRounds];
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      busy[round] = __any_sync(kAll, (group.entry[round] >> 32) != 0) != 0;
    }
#pragma unroll
    for (int round = kRounds - 1; round >= 0; --round) {
      if (!busy[round]) continue;
      const auto reciprocal = static_cast<uint32_t>(group.entry[round]);
      const auto rest = static_cast<uint32_t>(group.entry[round] >> 32);
      const uint32_t frequency = rest >> 18, shift = rest >> 14 & 15, begin = rest & (kProbabilityOne - 1);
      const bool active = frequency != 0, full = active && state_ >= frequency << 17;
      const unsigned givers = __ballot_sync(kAll, full) & kGivers;
      word_ -= __popc(givers);
      if (full && lane_ < kLanes) {
        word_[__popc(givers & ((1u << own_) - 1))] = static_cast<uint16_t>(state_);
      }
      const uint32_t state = full ? state_ >> kWordBits : state_;
      const uint32_t quotient = __umulhi(2 * state, reciprocal) >> shift;
      const uint32_t position = begin + state - quotient * frequency;
      const uint32_t slot =
          slot_of(*runs_, byte_of(group.indices, static_cast<unsigned>(round)), position, active);
      state_ = active ? quotient << kProbabilityBits | slot : state_;
    }
  }

  const RansRunsCuda* const runs_;
  const uint8_t *const index_, *const numbers_;
  const int64_t size_;
  int64_t groups_;  // that are still to be loaded
  int64_t place_;   // of the lane's symbols in the next of them
  int lane_, own_;  // the number in the warp, and among the lanes
  bool aligned_;
  uint32_t state_;
  uint16_t* const words_end_;
  uint16_t* word_;  // the one put down last
  uint32_t coming_indices_, coming_numbers_;
  int coming_count_;  // how many of these there are
  Group coming_;
};

// A block a stream and number of lanes. `order` says what is known where lanes go by size.
__global__ void __launch_bounds__(32, 16)
    rans_code_kernel(RansEncodeCuda task, int lanes, bool initial, EncodeOrder order) {
  constexpr auto kLimit = static_cast<int64_t>(kWideFromWords);
  const int64_t s = blockIdx.x;
  const int lane = own_lane();
  if (!is_fine(task, s)) return;
  EncodeRow& row = task.rows[s];
  if (lanes == kWideLanes || (lanes == 0 && blockIdx.y == 0)) {
    EncodeLanes<kWideLanes> wide(task, row, s, initial, lane);
    wide.run(INT64_MAX);
    __syncwarp();  // every lane has read the number of words
    wide.save(row);
    return;
  }
  // See RansEncoder::finish.
  if (order == EncodeOrder::kWideFirst && row.words[0] >= kLimit + 2 * kWideLanes) return;
  EncodeLanes<kNarrowLanes> narrow(task, row, s, initial, lane);
  narrow.run(order == EncodeOrder::kGiven ? INT64_MAX : kLimit);
  __syncwarp();
  narrow.save(row);
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

__global__ void __launch_bounds__(kWriteThreads)
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
  for (int i = thread; i < 4 * row.lanes; i += kWriteThreads) {
    at[i] = static_cast<uint8_t>(row.states[variant][i / 4] >> 8 * (i % 4));
  }
  at += 4 * row.lanes;
  // Devices are little-endian, as the stream is.
  const auto copy = [&](const void* from, int64_t bytes) {
    const auto* source = static_cast<const uint8_t*>(from);
    for (int64_t i = thread; i < bytes; i += kWriteThreads) at[i] = source[i];
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

cudaError_t launch_rans_code(const RansEncodeCuda& task, int lanes, bool initial, EncodeOrder order,
                             cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(task.streams), lanes == 0 ? 2 : 1);
  return AICR_LAUNCH(rans_code_kernel, blocks, 32, 0, stream, task, lanes, initial, order);
}

cudaError_t launch_rans_choose(const RansEncodeCuda& task, int lanes, int64_t* ends, cudaStream_t stream) {
  return AICR_LAUNCH(rans_choose_kernel, 1, 32, 0, stream, task, lanes, ends);
}

cudaError_t launch_rans_write(const RansEncodeCuda& task, const int64_t* ends, uint8_t* data,
                              cudaStream_t stream) {
  return AICR_LAUNCH(rans_write_kernel, static_cast<unsigned>(task.streams), kWriteThreads, 0, stream, task,
                     ends, data);
}

}  // namespace aicr
