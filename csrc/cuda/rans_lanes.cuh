// The lanes of a stream that is decoded: from words and indices to slots.
#pragma once

#include <cstdint>

#include "cuda/near_array.cuh"
#include "cuda/rans_decode.cuh"
#include "cuda/rans_step.cuh"

namespace aicr {

// So many tables fit into the shared memory of a block.
constexpr int kNearTables = 128;
constexpr uint32_t kTableBytes = kBuckets * sizeof(uint64_t);

// How far into a table the bucket of a state lies, in bytes.
__device__ __forceinline__ uint32_t bucket_byte(uint32_t state) {
  constexpr uint32_t kBucketMask = kProbabilityOne - kBucketSlots;
  static_assert(sizeof(uint64_t) == 8 && kBucketBits > 3);
  return (state & kBucketMask) >> (kBucketBits - 3);
}

// What slots do to states, in shared memory. An index that names no table leads to any of them; what comes of
// it is thrown away.
class NearSteps {
 public:
  __device__ explicit NearSteps(const uint64_t* shared) : steps_(shared) {}
  __device__ __forceinline__ NearArray<uint64_t> table(uint32_t number) const {
    return steps_.from(number % kNearTables * kTableBytes);
  }
  static __device__ __forceinline__ uint64_t look_up(const NearArray<uint64_t>& table, uint32_t state) {
    return table.from(bucket_byte(state)).front();
  }

 private:
  NearArray<uint64_t> steps_;
};

// And in the memory of the device.
class FarSteps {
 public:
  __device__ explicit FarSteps(const RansTablesCuda& tables)
      : steps_(registered(reinterpret_cast<const char*>(&tables.step[0][0]))) {}
  __device__ __forceinline__ const char* table(uint32_t number) const {
    return steps_ + number * kTableBytes;
  }
  static __device__ __forceinline__ uint64_t look_up(const char* table, uint32_t state) {
    return __ldg(reinterpret_cast<const uint64_t*>(table + bucket_byte(state)));
  }

 private:
  const char* steps_;
};

// The lanes of a stream in the registers of a warp.
template <int kLanes, typename Steps>
class Lanes {
 public:
  __device__ Lanes(const RansStepCuda& task, StepMemory& memory, const Steps& steps, const StreamState& row,
                   const Part& part, int lane)
      : steps_(steps),
        memory_(memory),
        part_(part),
        lane_(lane),
        own_(lane % kLanes),
        state_(row.lanes[own_]),
        word_at_(row.word),
        words_end_(row.words_end),
        next_word_(task.data + row.word + 2 * lane),
        words_stop_(task.data + row.words_end),
        aligned_(is_aligned<uint32_t>(part.index)),
        first_is_skip_((task.tables->info[0] >> kSkipAt & 1) != 0),
        check_(task.tables->tables) {}

  __device__ StreamFault run() {
    coming_ = indices_of(0);
#pragma unroll
    for (int i = 0; i < kAhead / kStagedAtOnce; ++i) memory_.words[kStagedAtOnce * i + lane_] = read_word();
    staged_ = kAhead;
    coming_word_ = read_word();
    __syncwarp();
    const int64_t size = part_.size;
    int turn = 0;
    for (int64_t begin = 0; begin < size; begin += kTogether) {
      const int count = static_cast<int>(size - begin < kTogether ? size - begin : kTogether);
      const StreamFault fault =
          meet(memory_, turn, true, make_slots(begin, count, memory_.slots[turn]), lane_);
      if (fault != StreamFault::kNone) return fault;
      turn ^= 1;
    }
    return meet(memory_, turn, true, StreamFault::kNone, lane_);
  }

  __device__ void save(StreamState& row) const {
    if (lane_ < kLanes) row.lanes[lane_] = state_;
    if (lane_ == 0) row.word = word_at_;
  }

 private:
  static constexpr unsigned kTakers = kLanes == kWarp ? kAll : (1u << kLanes) - 1;
  static constexpr int kAhead = words_at_hand(kLanes);

  __device__ uint32_t indices_of(int64_t begin) const {
    return four_indices(part_.index, begin + kEach * lane_, part_.size, aligned_);
  }

  // The next word of this lane's, one in 32. Both its bytes are there if the first one is.
  __device__ uint16_t read_word() {
    uint32_t word = 0;
    if (next_word_ < words_stop_) {
      word = __ldg(next_word_) | static_cast<uint32_t>(__ldg(next_word_ + 1)) << 8;
    }
    next_word_ += 2 * kWarp;
    return static_cast<uint16_t>(word);
  }

  __device__ void stage_words() {
    memory_.words[staged_ + lane_] = coming_word_;
    staged_ += kStagedAtOnce;
    coming_word_ = read_word();
    __syncwarp();
  }

  // Moves what is staged to the front.
  __device__ void rewind_words() {
    constexpr int kMost = kAhead / kStagedAtOnce + 1;
    uint16_t kept[kMost];
#pragma unroll
    for (int i = 0; i < kMost; ++i) kept[i] = memory_.words[word_ + kStagedAtOnce * i + lane_];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kMost; ++i) memory_.words[kStagedAtOnce * i + lane_] = kept[i];
    __syncwarp();
    staged_ -= word_;
    word_ = 0;
  }

  // The lanes that a word is due to.
  __device__ __forceinline__ unsigned due() const { return __ballot_sync(kAll, state_ < kStateLow); }
  __device__ __forceinline__ void take_words(unsigned due) {
    const unsigned takers = due & kTakers;
    const uint32_t word = memory_.words[word_ + __popc(takers & ((1u << own_) - 1))];
    const uint32_t longer = state_ << kWordBits | word;
    state_ = state_ < kStateLow ? longer : state_;
    word_ += __popc(takers);
  }

  // A group of which `count` symbols are there. `four` are the indices of the lane.
  template <bool kWhole>
  __device__ __forceinline__ void make_group(uint32_t four, int count, uint16_t* slots) {
    bool busy[kRounds];
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      busy[round] =
          kLanes == kWideLanes || __any_sync(kAll, !first_is_skip_ || (four >> 8 * round & 255) != 0) != 0;
    }
    uint32_t slot[kRounds];
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      slot[round] = 0;
      if (!busy[round]) continue;
      const auto table = steps_.table(four >> 8 * round & 255);
      uint64_t bucket = 0;
      if (kLanes == kNarrowLanes) bucket = Steps::look_up(table, state_);
      const unsigned takers = due();
      if (kLanes == kWideLanes || takers != 0) {
        if (kLanes == kNarrowLanes) __syncwarp();  // so that this is jumped over and not carried along
        take_words(takers);
        bucket = Steps::look_up(table, state_);
      }
      slot[round] = state_;
      if (kWhole || kRounds * own_ + round < count) state_ = next_state(state_, bucket);
    }
    const uint2 packed =
        make_uint2(__byte_perm(slot[0], slot[1], 0x5410), __byte_perm(slot[2], slot[3], 0x5410));
    if (lane_ < kLanes) reinterpret_cast<uint2*>(slots)[lane_] = packed;
  }

  // The groups of a piece of which `count` symbols are there.
  template <bool kWhole>
  __device__ __forceinline__ void make_piece(uint32_t indices, int count, uint16_t* slots) {
#pragma unroll 1
    for (int from = 0; from < kWarp; from += kLanes) {  // the lanes that hold the indices of the group
      const int before = kRounds * from;
      if (!kWhole && before >= count) break;
      const uint32_t four = kLanes == kWideLanes ? indices : __shfl_sync(kAll, indices, from + own_);
      if (__any_sync(kAll, !first_is_skip_ || four != 0) == 0) continue;
#pragma unroll 1
      while (staged_ - word_ < kAhead) stage_words();
      make_group<kWhole>(four, count - before, slots + before);
    }
  }

  __device__ StreamFault make_slots(int64_t begin, int count, uint16_t* slots) {
    rewind_words();
    for (int piece = 0; piece < count; piece += kPiece) {
      const uint32_t indices = coming_;
      coming_ = indices_of(begin + piece + kPiece);
      check_.see(indices);
      if (count - piece >= kPiece) {
        make_piece<true>(indices, kPiece, slots + piece);
      } else {
        make_piece<false>(indices, count - piece, slots + piece);
      }
    }
    take_words(due());
    word_at_ += 2 * word_;
    if (__any_sync(kAll, check_.found())) return StreamFault::kIndex;
    return word_at_ > words_end_ ? StreamFault::kWords : StreamFault::kNone;
  }

  const Steps steps_;
  StepMemory& memory_;
  const Part part_;
  int lane_, own_;  // the number in the warp, and among the lanes
  uint32_t state_;
  int64_t word_at_, words_end_;
  const uint8_t *next_word_, *words_stop_;
  int word_ = 0, staged_ = 0;  // where the next is in shared memory, and where the next to be staged goes
  uint16_t coming_word_ = 0;
  uint32_t coming_ = 0;  // indices
  bool aligned_, first_is_skip_;
  IndexCheck check_;
};

}  // namespace aicr
