// What kernels of the entropy coder share: the pieces in which a warp takes symbols, and how tables are read.
#pragma once

#include <cstdint>

#include "cuda/rans_tables.cuh"
#include "cuda/warp.cuh"

namespace aicr {

constexpr int kEach = 4;               // symbols of a lane
constexpr int kPiece = kWarp * kEach;  // that are taken together

// Whether all tables of a set are some. Each warp of a step asks it, so flags are read four at a time.
__device__ __forceinline__ bool tables_are_valid(const RansTablesCuda& tables, int lane) {
  const auto* flags = reinterpret_cast<const uint32_t*>(tables.valid);
  bool valid = true;
#pragma unroll
  for (int i = 0; i < kMaxTables / 128; ++i) valid = valid && flags[lane + 32 * i] == 0x01010101u;
  return __all_sync(kAll, valid) != 0;
}

// Whether `address` is that of a whole vector of this type.
template <typename Vector>
__device__ __forceinline__ bool is_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(Vector) == 0;
}

// Four indices, or other bytes, from the place `at` on, with zeros for places that are not in front of `end`.
__device__ __forceinline__ uint32_t four_indices(const uint8_t* index, int64_t at, int64_t end,
                                                 bool aligned) {
  if (aligned && end - at >= kEach) return __ldg(reinterpret_cast<const uint32_t*>(index + at));
  uint32_t four = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    if (at + k < end) four |= static_cast<uint32_t>(__ldg(index + at + k)) << 8 * k;
  }
  return four;
}

// A byte of four. Shifts of which an address is made would become more instructions.
__device__ __forceinline__ uint32_t byte_of(uint32_t four, unsigned number) {
  return __byte_perm(four, 0, 0x4440 + number);
}

// Finds indices that name none of 1 to 256 tables, four bytes at a time.
class IndexCheck {
 public:
  __device__ explicit IndexCheck(int32_t tables)
      : step_(0x01010101u * static_cast<uint32_t>((tables <= 128 ? 128 : 256) - tables)),
        few_(tables <= 128 ? kAll : 0) {}

  // Bit 7 of a sum says whether the low bits of an index alone are too large.
  __device__ __forceinline__ void see(uint32_t four) {
    const uint32_t sum = (four & 0x7f7f7f7fu) + step_;
    found_ |= (sum & four) | ((sum | four) & few_);
  }

  __device__ bool found() const { return (found_ & 0x80808080u) != 0; }

 private:
  uint32_t step_, few_, found_ = 0;
};

// The state behind a symbol: frequency * (state >> 14) + rank of the slot. See RansTablesCuda::step: of the
// two sums the one that counts is the larger.
__device__ __forceinline__ uint32_t next_state(uint32_t state, uint64_t bucket) {
  const uint32_t place = (state & (kBucketSlots - 1)) << kStepFrequencyBits;
  const uint32_t entry =
      max(static_cast<uint32_t>(bucket) + place, static_cast<uint32_t>(bucket >> 32) + place);
  const uint32_t frequency = entry & ((1u << kStepFrequencyBits) - 1);
  const auto behind = static_cast<uint32_t>(static_cast<int32_t>(entry) >> kStepFrequencyBits);
  return frequency * ((state >> kProbabilityBits) + 1) + behind;
}

// What a slot, of which only the last 14 bits count, means; see RansTablesCuda::meaning.
__device__ __forceinline__ uint32_t meaning_of(const uint64_t* meanings, uint32_t table, uint32_t slot) {
  const uint64_t bucket = __ldg(meanings + (table * kBuckets + (slot >> kBucketBits & (kBuckets - 1))));
  const auto first = static_cast<uint32_t>(bucket), second = static_cast<uint32_t>(bucket >> 32);
  return (slot << kThresholdAt | ((1u << kThresholdAt) - 1)) >= first ? second : first;
}

}  // namespace aicr
