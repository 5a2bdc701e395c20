// Table sets on the device, the same as in common/rans_tables.hpp.
//
// Tables: a warp makes one table. Each lane holds what is left of two entries, and the rarest and the most
// frequent one are found by a reduction of the warp for each of the 64 buckets. Entries of one size are told
// apart by their number, so there is one answer only.
//
// Slots: a block of 256 threads inverts one table; each slot writes itself where its entry and rank lead.
#include "cuda/launch.cuh"
#include "cuda/rans_checksum.cuh"
#include "cuda/rans_tables.cuh"
#include "cuda/rans_warp.cuh"

namespace aicr {
namespace {

constexpr int kSlotThreads = 256;

__device__ void make_crc(int byte, int lane, RansTablesCuda& out) {
  if (lane >= 8) return;
  if (lane < 4) {
    uint32_t remainder = static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8 * (lane + 1); ++bit) remainder = crc_times_x(remainder);
    out.crc[lane][byte] = remainder;
  } else {
    constexpr uint32_t kStride = crc_power(8 * kStrideBytes);
    out.stride[lane - 4][byte] = crc_product(static_cast<uint32_t>(byte) << 8 * (lane - 4), kStride);
  }
}

__device__ bool splits_rise(const RansSplitsCuda& splits, int lane) {
  bool rise = splits.at != nullptr;
  for (int64_t s = lane; rise && s <= splits.streams; s += 32) {
    const int64_t at = splits.at[s];
    rise = at >= (s > 0 ? splits.at[s - 1] : 0) && (s > 0 || at == 0) &&
           (s < splits.streams || at == splits.count);
  }
  return __all_sync(kAll, rise) != 0;
}

// A block a table, and one for the splits.
__global__ void __launch_bounds__(32)
    rans_tables_kernel(const int32_t* numbers, int64_t size, RansSplitsCuda splits, RansTablesCuda* out) {
  __shared__ uint32_t row[kMaxEntries];
  const int table = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x);
  if (table == kMaxTables) {
    const bool rise = splits_rise(splits, lane);
    if (lane == 0) out->splits_rise = rise;
    return;
  }
  make_crc(table, lane, *out);
  const int64_t tables = size < 2 ? 0 : numbers[0], width = size < 2 ? 0 : numbers[1];
  bool valid = tables >= 1 && tables <= kMaxTables && width >= 0 && width <= kMaxEntries &&
               size == 2 + tables * (width + 3);
  if (table == 0 && lane == 0) out->tables = valid ? static_cast<int32_t>(tables) : 0;

  int32_t entries = 0, offset = 0, shift = 0;
  uint32_t low = 0, high = 0;
  if (valid && table < tables) {
    const int32_t* sizes = numbers + 2 + tables * width;
    entries = sizes[table];
    if (entries != 0) {
      offset = sizes[tables + table];
      shift = sizes[2 * tables + table];
      valid = entries >= 2 && entries <= width && shift >= 0 && shift <= kMaxShift && offset >= -32768 &&
              offset <= 32767 + 2 - entries;
      const int32_t* given = numbers + 2 + table * width;
      if (valid && lane < entries) low = static_cast<uint32_t>(given[lane]);
      if (valid && lane + 32 < entries) high = static_cast<uint32_t>(given[lane + 32]);
      const auto possible = [&](uint32_t frequency, int number) {
        return number >= entries || (frequency >= 1 && frequency <= kProbabilityOne);
      };
      valid = valid && possible(low, lane) && possible(high, lane + 32);
      valid =
          __all_sync(kAll, valid) != 0 && __reduce_add_sync(kAll, valid ? low + high : 0) == kProbabilityOne;
    }
  }
  const bool skip = entries == 0 || !valid;
  const uint32_t regular = skip ? 1 : static_cast<uint32_t>(entries - 1);
  if (skip) offset = shift = 0;
  if (lane == 0) {
    out->valid[table] = valid;
    out->info[table] = (static_cast<uint32_t>(offset) & 0xffff) | regular << kRegularAt |
                       static_cast<uint32_t>(shift) << kShiftAt | (skip ? 1u << kSkipAt : 0);
  }
  // See TableSet::build_alias. A bucket of `second` from its rank `used` on, with `threshold` slots of
  // `first` before.
  const auto bucket_of = [&](uint32_t first, uint32_t first_frequency, uint32_t second, uint32_t frequency,
                             uint32_t used, uint32_t threshold) {
    const auto fields = [&](uint32_t entry, uint32_t of_entry) {
      const uint32_t number = entry == regular ? kEscapeMark : entry;
      return uint64_t{of_entry} << kFrequencyAt | uint64_t{number} << kNumberAt;
    };
    const uint32_t reach = kBucketSlots - 1 - threshold;
    return reach | fields(first, first_frequency) | fields(second, frequency) << kSecondEntry |
           uint64_t{reach + used - frequency + kProbabilityOne} << kSecondBiasAt;
  };
  if (skip) {  // one entry has all slots
    for (uint32_t bucket = static_cast<uint32_t>(lane); bucket < kBuckets; bucket += 32) {
      out->decode[table][bucket] =
          bucket_of(0, kProbabilityOne, 0, kProbabilityOne, bucket * kBucketSlots, 0);
    }
    return;
  }
  row[lane] = low;
  row[lane + 32] = high;
  __syncwarp();
  const auto own = static_cast<uint32_t>(lane);
  uint32_t left_low = low, left_high = high;
  for (int bucket = 0; bucket < kBuckets; ++bucket) {
    const uint32_t small_low = left_low != 0 ? left_low << 6 | own : kAll;
    const uint32_t small_high = left_high != 0 ? left_high << 6 | (own + 32) : kAll;
    const uint32_t smallest = __reduce_min_sync(kAll, min(small_low, small_high));
    const uint32_t large_low = left_low << 6 | (63 - own), large_high = left_high << 6 | (31 - own);
    const uint32_t largest = __reduce_max_sync(kAll, max(large_low, large_high));
    const uint32_t rarest = smallest & 63;
    // Where the rarest one fills the bucket, it is alone in it; else the most frequent one is another.
    const bool alone = smallest >> 6 >= kBucketSlots;
    const uint32_t threshold = alone ? 0 : smallest >> 6, commonest = alone ? rarest : 63 - (largest & 63);
    const uint32_t left = (alone ? smallest : largest) >> 6, taken = kBucketSlots - threshold;
    if (rarest == own) left_low -= threshold;
    if (rarest == own + 32) left_high -= threshold;
    if (commonest == own) left_low -= taken;
    if (commonest == own + 32) left_high -= taken;
    if (lane == 0) {
      const uint32_t frequency = row[commonest];
      out->decode[table][bucket] =
          bucket_of(rarest, row[rarest], commonest, frequency, frequency - left, threshold);
    }
  }
}

__global__ void __launch_bounds__(kSlotThreads)
    rans_slots_kernel(const RansTablesCuda* tables, const int32_t* numbers, RansSlotsCuda* out) {
  __shared__ uint32_t first[kMaxEntries];
  const int table = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const uint32_t info = tables->info[table];
  if (table >= tables->tables || tables->valid[table] == 0 || (info >> kSkipAt & 1) != 0) return;
  const int regular = static_cast<int>(info >> kRegularAt & 255);
  if (thread <= regular) {
    const int32_t* row = numbers + 2 + static_cast<int64_t>(table) * numbers[1];
    uint32_t begin = 0;
    for (int k = 0; k < thread; ++k) begin += static_cast<uint32_t>(row[k]);
    const int number = thread == regular ? kEscapeMark : thread;
    first[number] = begin;
    out->entry[table][number] = static_cast<uint32_t>(row[thread]) | begin << 15;
  }
  __syncthreads();
  for (uint32_t slot = static_cast<uint32_t>(thread); slot < kProbabilityOne; slot += kSlotThreads) {
    const UnpackedSlot unpacked = unpack_bucket(tables->decode[table][slot >> kBucketBits], slot);
    const uint32_t rank = unpacked.frequency + unpacked.offset;
    out->slot[table][first[unpacked.number] + rank] = static_cast<uint16_t>(slot);
  }
}

}  // namespace

cudaError_t launch_rans_tables(const int32_t* numbers, int64_t size, const RansSplitsCuda& splits,
                               RansTablesCuda* tables, cudaStream_t stream) {
  return AICR_LAUNCH(rans_tables_kernel, kMaxTables + 1, 32, 0, stream, numbers, size, splits, tables);
}

cudaError_t launch_rans_slots(const RansTablesCuda* tables, const int32_t* numbers, RansSlotsCuda* slots,
                              cudaStream_t stream) {
  return AICR_LAUNCH(rans_slots_kernel, kMaxTables, kSlotThreads, 0, stream, tables, numbers, slots);
}

}  // namespace aicr
