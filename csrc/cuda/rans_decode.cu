// Decoding of rANS streams: the symbols and faults of common/rans_stream.hpp, and nothing else.
//
// Begin, end: a thread a stream.
//
// Step: two warps take one stream through one segment. One has the lanes, and notes which slots they are in;
// the other one makes symbols of the slots, 1024 behind it. So what the lanes do not wait for is not in their
// way, and of two faults the same one is found as on the CPU: words that are missing show after 1024 symbols
// and before the first of them.
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

#include "common/rans_kernels.hpp"
#include "cuda/async_copy.cuh"
#include "cuda/launch.cuh"
#include "cuda/near_array.cuh"
#include "cuda/rans_checksum.cuh"
#include "cuda/rans_warp.cuh"

namespace aicr {
namespace {

constexpr int kTogether = 8 * kPiece;  // slots in one half of the memory; kChunk of the CPU's
constexpr int kStepThreads = 2 * kWarp;
// Of how many streams each has the tables of a set in its own shared memory, and how many tables.
constexpr int64_t kFewStreams = 256;
constexpr int kNearTables = 128;
constexpr size_t kNearBytes = kNearTables * kBuckets * sizeof(uint64_t);
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
__device__ StreamFault meet(StepMemory& memory, int turn, bool is_lanes, StreamFault found, int lane) {
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

// What a warp needs to make symbols of slots.
class Symbols {
 public:
  __device__ Symbols(const RansStepCuda& task, StepMemory& memory, const StreamState& row, const Part& part,
                     int lane)
      : tables_(*task.tables),
        meanings_(registered(&tables_.meaning[0][0])),
        memory_(memory),
        part_(part),
        lane_(lane),
        aligned_(is_aligned<uint32_t>(part.index) && is_aligned<uint2>(part.symbols)),
        raw_{task.data + row.words_end, 8 * (row.raw_end - row.words_end), row.raw_bit},
        checksum_(*task.tables, row.crc, lane) {
    if (lane == 0) {
      memory.escapes = {task.data + row.raw_end, 8 * (row.end - row.raw_end), row.escape_bit};
    }
    __syncwarp();
  }

  __device__ StreamFault run() {
    coming_ = indices_of(0);
    const int64_t size = part_.size;
    StreamFault found = StreamFault::kNone;
    int turn = 0;
    for (int64_t begin = 0; begin < size; begin += kTogether) {
      const StreamFault fault = meet(memory_, turn, false, found, lane_);
      if (fault != StreamFault::kNone) return fault;
      const int count = static_cast<int>(size - begin < kTogether ? size - begin : kTogether);
      for (int done = 0; done < count && found == StreamFault::kNone; done += kPiece) {
        found = make_symbols(begin + done, min(kPiece, count - done), memory_.slots[turn] + done);
      }
      turn ^= 1;
    }
    return meet(memory_, turn, false, found, lane_);
  }

  __device__ void save(StreamState& row) {
    const uint32_t crc = checksum_.value();
    if (lane_ != 0) return;
    row.raw_bit = raw_.position;
    row.escape_bit = memory_.escapes.position;
    row.crc = crc;
  }

 private:
  __device__ uint32_t indices_of(int64_t begin) const {
    return four_indices(part_.index, begin + kEach * lane_, part_.size, aligned_);
  }

  // The symbols from `begin` on, `count` <= kPiece.
  __device__ StreamFault make_symbols(int64_t begin, int count, const uint16_t* slots) {
    const uint32_t four = coming_;
    coming_ = indices_of(begin + kPiece);
    const uint2 slot = reinterpret_cast<const uint2*>(slots)[lane_];
    const bool whole = count == kPiece;
    uint32_t meaning[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const uint32_t pair = k < 2 ? slot.x : slot.y;
      meaning[k] = meaning_of(meanings_, byte_of(four, k), pair >> 16 * (k & 1));
    }
    if (!whole) {  // those that are not there have neither bits nor a fault
#pragma unroll
      for (int k = 0; k < kEach; ++k) meaning[k] = kEach * lane_ + k < count ? meaning[k] : 0;
    }
    const uint32_t together = meaning[0] | meaning[1] | meaning[2] | meaning[3];
    if (__any_sync(kAll, (together & (kSpecial | kShiftMask)) != 0)) {
      const StreamFault fault = add_bits(meaning, four, (together & kSpecial) != 0, count);
      if (fault != StreamFault::kNone) return fault;
    }
    const uint2 packed = make_uint2(pack(meaning[0], meaning[1]), pack(meaning[2], meaning[3]));
    int16_t* const out = part_.symbols + begin + kEach * lane_;
    if (whole && aligned_) {
      *reinterpret_cast<uint2*>(out) = packed;
    } else {
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        const uint32_t pair = k < 2 ? packed.x : packed.y;
        if (kEach * lane_ + k < count) out[k] = static_cast<int16_t>(pair >> 16 * (k & 1));
      }
    }
    if (whole) {
      checksum_.add(packed);
    } else {
      checksum_.add(packed, count);
    }
    return StreamFault::kNone;
  }

  static __device__ __forceinline__ uint32_t pack(uint32_t first, uint32_t second) {
    static_assert(kMeaningAt == 8, "symbols are the second and third byte");
    return __byte_perm(first, second, 0x6521);
  }

  // Adds raw bits to what slots mean, so that it is symbols there, and makes symbols of what is special.
  __device__ StreamFault add_bits(uint32_t (&meaning)[kEach], uint32_t four, bool special, int count) {
    int bits = 0;
#pragma unroll
    for (int k = 0; k < kEach; ++k) bits += static_cast<int>(meaning[k] & kShiftMask);
    const int behind = prefix_sum(bits, lane_);  // the raw bits up to this lane's last
    const int total = __shfl_sync(kAll, behind, 31);
    const int64_t position = raw_.position + behind - bits;
    if (__any_sync(kAll, special) || raw_.position + total > raw_.size) {
      const StreamFault fault = add_bits_one_by_one(meaning, four, position, count);
      if (fault != StreamFault::kNone) return fault;
    } else {
      uint64_t low = bits > 0 ? read_bits(position, bits) : 0;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        const uint32_t shift = meaning[k] & kShiftMask;
        meaning[k] += (static_cast<uint32_t>(low) & ((1u << shift) - 1)) << kMeaningAt;
        low >>= shift;
      }
    }
    raw_.position += total;
    return StreamFault::kNone;
  }

  // `count` <= 48 bits from `position` on, all of which are in the section, and what follows in their last
  // byte.
  __device__ __forceinline__ uint64_t read_bits(int64_t position, int count) const {
    constexpr int kBytes = (7 + kEach * kMaxShift + 7) / 8;
    const uint8_t* at = raw_.section + (position >> 3);
    const int skipped = static_cast<int>(position & 7), last = (skipped + count - 1) >> 3;
    uint64_t bits = __ldg(at);
#pragma unroll
    for (int byte = 1; byte < kBytes; ++byte) {
      if (byte <= last) bits |= uint64_t{__ldg(at + byte)} << 8 * byte;
    }
    return bits >> skipped;
  }

  // The same for escapes and for bits that may be missing; the first fault of the piece, if there is one.
  __device__ StreamFault add_bits_one_by_one(uint32_t (&meaning)[kEach], uint32_t four, int64_t position,
                                             int count) {
    int32_t quotient[kEach];
    unsigned escapes = 0;  // a bit for each of the four
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const uint32_t number = meaning[k] >> kMeaningAt & 0xffff;
      const bool special = (meaning[k] & kSpecial) != 0;
      if (special && number == kEscapeMark) escapes |= 1u << k;
      quotient[k] = special ? offset_of(four, k) + static_cast<int32_t>(number) : 0;
    }
    StreamFault escape_fault = StreamFault::kNone;  // of the lane's first escape that has one
    int faulty_escape = kEach;
    while (const unsigned waiting = __ballot_sync(kAll, escapes != 0)) {
      const int turn = __ffs(static_cast<int>(waiting)) - 1;
      if (lane_ == turn) {
        const int which = __ffs(static_cast<int>(escapes)) - 1;
        escapes &= escapes - 1;
        const uint32_t distance = read_escape(memory_.escapes, escape_fault);
        if (escape_fault != StreamFault::kNone) {
          faulty_escape = which;
          escapes = 0;
        }
        const auto steps = static_cast<int32_t>(distance >> 1);
        const auto regular = static_cast<int32_t>(info_of_table(four, which) >> kRegularAt & 255);
        const int32_t meant = offset_of(four, which) + ((distance & 1) != 0 ? -1 - steps : regular + steps);
#pragma unroll
        for (int k = 0; k < kEach; ++k) quotient[k] = k == which ? meant : quotient[k];
      }
      __syncwarp();
    }

    StreamFault fault = StreamFault::kNone;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      if (kEach * lane_ + k >= count || fault != StreamFault::kNone) continue;
      const int shift = static_cast<int>(meaning[k] & kShiftMask);
      if (k == faulty_escape) {
        fault = escape_fault;
      } else if (position + shift > raw_.size) {
        fault = StreamFault::kBits;
      } else {
        auto symbol = static_cast<int32_t>(bits_at(raw_.section, position, shift));
        if ((meaning[k] & kSpecial) != 0) {
          symbol += quotient[k] * (1 << shift) - ((1 << shift) >> 1);
        } else {
          symbol += static_cast<int16_t>(meaning[k] >> kMeaningAt);
        }
        if (symbol != static_cast<int16_t>(symbol)) fault = StreamFault::kSymbol;
        meaning[k] = static_cast<uint32_t>(symbol) << kMeaningAt;
      }
      position += shift;
    }
    const unsigned faulty = __ballot_sync(kAll, fault != StreamFault::kNone);
    if (faulty == 0) return StreamFault::kNone;
    const int first = __ffs(static_cast<int>(faulty)) - 1;
    return static_cast<StreamFault>(__shfl_sync(kAll, static_cast<int32_t>(fault), first));
  }

  __device__ uint32_t info_of_table(uint32_t four, int k) const {
    return __ldg(&tables_.info[four >> 8 * k & 255]);
  }
  __device__ int32_t offset_of(uint32_t four, int k) const {
    return static_cast<int16_t>(info_of_table(four, k) & 0xffff);
  }

  const RansTablesCuda& tables_;
  const uint64_t* const meanings_;
  StepMemory& memory_;
  const Part part_;
  int lane_;
  bool aligned_;
  uint32_t coming_ = 0;  // indices
  Bits raw_;
  WarpChecksum checksum_;
};

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
