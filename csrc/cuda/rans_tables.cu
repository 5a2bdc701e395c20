// Table sets on the device, the same as in common/rans_tables.hpp.
//
// A warp makes one table. Each lane holds what is left of two entries, and the rarest and the most frequent
// one are found by a reduction of the warp for each of the 64 buckets. Entries of one size are told apart by
// their number, so there is one answer only.
//
// For encoding, the runs that the buckets are made of are sorted by their positions: each counts those in
// front of it. Cells then look for theirs.
#include "cuda/launch.cuh"
#include "cuda/rans_checksum.cuh"
#include "cuda/rans_tables.cuh"
#include "cuda/rans_warp.cuh"

namespace aicr {
namespace {

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

// The runs of a table on their way.
struct Runs {
  uint32_t begin[kMaxEntries];  // the first position of each entry
  uint32_t made[kMaxRuns];      // two from each bucket, kNoRun if it has but one
  uint32_t sorted[kMaxRuns + 2];
};
constexpr uint32_t kNoRun = ~0u;

// A run from `position` on that has the slots from `slot` on.
__device__ uint32_t make_run(uint32_t position, uint32_t slot) {
  return position << 16 | ((slot - position) & (kProbabilityOne - 1));
}
__device__ uint32_t run_begin(uint32_t run) {
  return run >> 16;
}
__device__ uint32_t run_difference(uint32_t run) {
  return run & (kProbabilityOne - 1);
}

// See EncodeEntry. Of a table that is no skip table, no entry has the frequency 2^14.
__device__ uint64_t pack_entry(uint32_t frequency, uint32_t begin) {
  uint32_t shift = 0;
  while ((1u << shift) < frequency) ++shift;
  const uint64_t reciprocal = ((uint64_t{1} << (31 + shift)) + frequency - 1) / frequency;
  return reciprocal | uint64_t{begin | shift << 14 | frequency << 18} << 32;
}

// Sorts the runs and makes the cells of them.
__device__ void finish_runs(Runs& runs, int table, int lane, RansRunsCuda& out) {
  for (int i = lane; i < kMaxRuns + 2; i += kWarp) runs.sorted[i] = kProbabilityOne << 16;
  __syncwarp();
  for (int i = lane; i < kMaxRuns; i += kWarp) {
    const uint32_t own = runs.made[i];
    if (own == kNoRun) continue;
    int before = 0;
    for (int other = 0; other < kMaxRuns; ++other) before += runs.made[other] < own;
    runs.sorted[before] = own;
  }
  __syncwarp();
  for (int i = lane; i < kMaxRuns + 2; i += kWarp) out.run[table][i] = runs.sorted[i];
  for (int cell = lane; cell < kCells; cell += kWarp) {
    const auto begin = static_cast<uint32_t>(cell << kCellBits);
    int first = 0;
    for (int step = kMaxRuns / 2; step > 0; step /= 2) {
      if (run_begin(runs.sorted[first + step]) <= begin) first += step;
    }
    const uint32_t second = runs.sorted[first + 1];
    const bool more = run_begin(runs.sorted[first + 2]) < begin + (1 << kCellBits);
    out.cell[table][cell] = run_difference(runs.sorted[first]) | uint64_t{run_difference(second)} << 14 |
                            uint64_t{run_begin(second)} << 28 |
                            uint64_t{more ? static_cast<uint32_t>(first + 2) : 0} << 48;
  }
}

// A block a table, and one for the splits.
static_assert(kMaxEntries == kBuckets, "a lane has two of each");
__global__ void __launch_bounds__(32)
    rans_tables_kernel(const int32_t* numbers, int64_t size, RansSplitsCuda splits, RansTablesCuda* out,
                       RansRunsCuda* out_runs) {
  __shared__ uint32_t row[kMaxEntries];
  __shared__ Runs runs;
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
  const auto step_of = [](uint32_t frequency, int32_t behind) {
    return static_cast<uint32_t>(behind) << kStepFrequencyBits | frequency;
  };
  if (skip) {  // one entry has all slots, and no state changes
    for (uint32_t bucket = static_cast<uint32_t>(lane); bucket < kBuckets; bucket += 32) {
      const int32_t behind = static_cast<int32_t>(bucket * kBucketSlots - kProbabilityOne);
      out->step[table][bucket] = uint64_t{step_of(kProbabilityOne, behind)} << 32;
      out->meaning[table][bucket] = 0;
      if (out_runs != nullptr) out_runs->entry[table][bucket] = 0;
    }
    return;
  }
  const auto number_of = [&](uint32_t entry) { return entry == regular ? kEscapeMark : entry; };
  const auto meaning_of_entry = [&](uint32_t entry) {
    const int32_t half = (1 << shift) >> 1;
    const int32_t least = (offset + static_cast<int32_t>(entry)) * (1 << shift) - half;
    const bool special = entry == regular || least < -32768 || least + (1 << shift) - 1 > 32767;
    const uint32_t held = special ? number_of(entry) : static_cast<uint32_t>(least) & 0xffff;
    return held << kMeaningAt | (special ? kSpecial : 0) | static_cast<uint32_t>(shift);
  };
  row[lane] = low;
  row[lane + 32] = high;
  const auto own = static_cast<uint32_t>(lane);
  if (out_runs != nullptr) {
    const uint32_t low_end = prefix_sum(low, lane);
    const uint32_t high_end = prefix_sum(high, lane) + __shfl_sync(kAll, low_end, 31);
    runs.begin[lane] = low_end - low;
    runs.begin[lane + 32] = high_end - high;
    if (low != 0) out_runs->entry[table][number_of(own)] = pack_entry(low, low_end - low);
    if (high != 0) out_runs->entry[table][number_of(own + 32)] = pack_entry(high, high_end - high);
  }
  __syncwarp();
  uint32_t left_low = low, left_high = high;
  for (uint32_t bucket = 0; bucket < kBuckets; ++bucket) {
    const uint32_t small_low = left_low != 0 ? left_low << 6 | own : kAll;
    const uint32_t small_high = left_high != 0 ? left_high << 6 | (own + 32) : kAll;
    const uint32_t smallest = __reduce_min_sync(kAll, min(small_low, small_high));
    const uint32_t large_low = left_low << 6 | (63 - own), large_high = left_high << 6 | (31 - own);
    const uint32_t largest = __reduce_max_sync(kAll, max(large_low, large_high));
    const uint32_t rarest = smallest & 63;
    // Where the rarest one fills the bucket, it is alone in it; else the most frequent one is another. The
    // rarest one takes its last slots there, `threshold` of them.
    const bool alone = smallest >> 6 >= kBucketSlots;
    const uint32_t threshold = alone ? 0 : smallest >> 6, commonest = alone ? rarest : 63 - (largest & 63);
    const uint32_t left = (alone ? smallest : largest) >> 6, taken = kBucketSlots - threshold;
    if (rarest == own) left_low -= threshold;
    if (rarest == own + 32) left_high -= threshold;
    if (commonest == own) left_low -= taken;
    if (commonest == own + 32) left_high -= taken;
    if (lane != 0) continue;
    const uint32_t frequency = row[commonest], used = frequency - left, slot = bucket * kBucketSlots;
    const auto reach = static_cast<int32_t>(threshold);
    out->step[table][bucket] = uint64_t{step_of(frequency, -static_cast<int32_t>(left) - reach)} << 32 |
                               step_of(row[rarest], -reach);
    out->meaning[table][bucket] = uint64_t{meaning_of_entry(commonest)} << 32 | meaning_of_entry(rarest) |
                                  uint64_t{threshold} << kThresholdAt;
    if (out_runs == nullptr) continue;
    runs.made[2 * bucket] = alone ? kNoRun : make_run(runs.begin[rarest] + row[rarest] - threshold, slot);
    runs.made[2 * bucket + 1] = make_run(runs.begin[commonest] + used, slot + threshold);
  }
  if (out_runs == nullptr) return;
  __syncwarp();
  finish_runs(runs, table, lane, *out_runs);
}

}  // namespace

cudaError_t launch_rans_tables(const int32_t* numbers, int64_t size, const RansSplitsCuda& splits,
                               RansTablesCuda* tables, RansRunsCuda* runs, cudaStream_t stream) {
  return AICR_LAUNCH(rans_tables_kernel, kMaxTables + 1, 32, 0, stream, numbers, size, splits, tables, runs);
}

}  // namespace aicr
