// Decoding behind the lanes: from slots, raw bits and escapes to symbols, and their checksum.
#pragma once

#include <cstdint>

#include "cuda/rans_checksum.cuh"
#include "cuda/rans_decode.cuh"
#include "cuda/rans_step.cuh"

namespace aicr {

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

// The distance that an escape says; see RansReader::get_escape.
__device__ inline uint32_t read_escape(Bits& escapes, StreamFault& fault) {
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

}  // namespace aicr
