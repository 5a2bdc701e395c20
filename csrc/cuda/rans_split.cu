// Splitting symbols into table entries, raw bits and escapes, before they are coded. A warp a stream, 128
// symbols at a time, four to a lane: table entries, the checksum, and raw and escape bits, which prefix sums
// place where there are any. Bits are or-ed into words of zeros, in any order. What is found wrong is looked
// for again to tell which comes first.
//
// Determinism: integers only; the order in which bits are or-ed does not matter.
#include "cuda/launch.cuh"
#include "cuda/rans_checksum.cuh"
#include "cuda/rans_stream_memory.cuh"
#include "cuda/rans_warp.cuh"

namespace aicr {
namespace {

// Puts `count` <= 48 bits at a place of memory that has zeros there.
__device__ void put_bits(uint32_t* memory, int64_t position, uint64_t bits, int count) {
  uint32_t* at = memory + (position >> 5);
  const int skipped = static_cast<int>(position & 31);
  if (count == 0) return;
  atomicOr(at, static_cast<uint32_t>(bits << skipped));
  if (skipped + count > 32) atomicOr(at + 1, static_cast<uint32_t>(bits >> (32 - skipped)));
  if (skipped + count > 64) atomicOr(at + 2, static_cast<uint32_t>(bits >> (64 - skipped)));
}

// Reports the first index from `first` to `last` that names no table, or if all do the first symbol other
// than 0 of a skip table. There is one.
__device__ void report_first(const RansEncodeCuda& task, int64_t s, int64_t first, int64_t last, int lane) {
  __syncwarp();  // every lane has seen that there was no problem yet
  for (const EncodeProblem problem : {EncodeProblem::kIndex, EncodeProblem::kSkip}) {
    for (int64_t i = first; i < last; i += kWarp) {
      const int64_t at = i + lane;
      const uint8_t index = at < last ? task.index[at] : 0;
      const int16_t symbol = at < last ? task.symbols[at] : 0;
      const bool skip = (task.tables->info[index] >> kSkipAt & 1) != 0;
      const bool wrong =
          problem == EncodeProblem::kIndex ? index >= task.tables->tables : skip && symbol != 0;
      const unsigned found = __ballot_sync(kAll, at < last && wrong);
      if (found == 0) continue;
      if (lane == __ffs(static_cast<int>(found)) - 1) {
        report(task, s, problem, at - first, problem == EncodeProblem::kIndex ? int64_t{index} : symbol);
      }
      return;
    }
  }
}

// Four symbols from the place `at` on, each in two bytes, with zeros for places that are not in front of
// `end`.
__device__ __forceinline__ uint2 four_symbols(const int16_t* symbols, int64_t at, int64_t end, bool aligned) {
  if (aligned && end - at >= kEach) return __ldg(reinterpret_cast<const uint2*>(symbols + at));
  uint32_t symbol[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    symbol[k] = at + k < end ? static_cast<uint16_t>(__ldg(symbols + at + k)) : 0;
  }
  return make_uint2(symbol[0] | symbol[1] << 16, symbol[2] | symbol[3] << 16);
}

// What becomes of a symbol: its entry, counted from the first regular one, if there is such a one.
struct SplitSymbol {
  int32_t entry;
  uint32_t regular, shift, low;  // entries that are no escapes; raw bits, how many and which

  __device__ SplitSymbol(int16_t symbol, uint32_t info)
      : regular(info >> kRegularAt & 255), shift(info >> kShiftAt & 15) {
    const int32_t centred = symbol + static_cast<int32_t>((1u << shift) >> 1);
    low = static_cast<uint32_t>(centred) & ((1u << shift) - 1);
    entry = (centred >> shift) - static_cast<int16_t>(info & 0xffff);
  }
  __device__ bool is_within() const { return static_cast<uint32_t>(entry) < regular; }
  // For one that is not: of which number the code is due, plus 2, and how many bits that takes.
  __device__ uint32_t escape() const {
    const auto beyond = static_cast<uint32_t>(entry < 0 ? -1 - entry : entry - static_cast<int32_t>(regular));
    return 2 * beyond + (entry < 0 ? 1 : 0) + (1u << kEscapeOrder);
  }
  static __device__ int escape_bits(uint32_t escape) { return 2 * (31 - __clz(static_cast<int>(escape))); }
};

__device__ __forceinline__ int16_t symbol_of(uint2 four, int k) {
  return static_cast<int16_t>((k < 2 ? four.x : four.y) >> 16 * (k & 1));
}

// Writes the codes of the escapes among the symbols of a piece from the bit `position` on, and returns how
// many bits they take, or -1 if a skip table has another symbol than 0.
__device__ int put_escapes(uint32_t* memory, int64_t position, uint2 symbols, const uint32_t (&info)[kEach],
                           int lane) {
  bool wrong = false;
  int bits = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const SplitSymbol split(symbol_of(symbols, k), info[k]);
    if (split.is_within()) continue;
    wrong = wrong || (info[k] >> kSkipAt & 1) != 0;
    bits += SplitSymbol::escape_bits(split.escape());
  }
  if (__any_sync(kAll, wrong)) return -1;
  const int behind = prefix_sum(bits, lane);
  position += behind - bits;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const SplitSymbol split(symbol_of(symbols, k), info[k]);
    if (split.is_within()) continue;
    const uint32_t escape = split.escape();
    const int length = SplitSymbol::escape_bits(escape), log2 = length / 2;
    const uint64_t rest = escape & ((1u << log2) - 1);
    put_bits(memory, position, rest << log2 | 1u << (log2 - kEscapeOrder), length);
    position += length;
  }
  return __shfl_sync(kAll, behind, 31);
}

__global__ void __launch_bounds__(32, 16) rans_split_kernel(RansEncodeCuda task) {
  const int64_t s = blockIdx.x;
  const int lane = own_lane();
  if (!is_fine(task, s)) return;
  const RansTablesCuda& tables = *task.tables;
  const int64_t first = task.splits[s], last = task.splits[s + 1];
  if (!tables_are_valid(tables, lane)) {
    __syncwarp();  // every lane has seen that there was no problem yet
    if (lane == 0) report(task, s, EncodeProblem::kTables, 0, 0);
    return;
  }
  EncodeRow& row = task.rows[s];
  uint32_t* raw = task.raw + raw_place(row, s);
  uint32_t* escapes = task.escapes + escape_place(row, s);
  int64_t raw_bit = row.raw_bits, escape_bit = row.escape_bits;
  WarpChecksum checksum(tables, row.crc, lane);
  IndexCheck check(tables.tables);
  const uint32_t* const infos = registered(&tables.info[0]);
  const uint8_t* const index = task.index + first;
  const int16_t* const symbols = task.symbols + first;
  uint8_t* const entries = task.entries + task.entries_before + first;
  const int64_t size = last - first;
  const bool aligned = is_aligned<uint32_t>(index) && is_aligned<uint2>(symbols);
  const bool aligned_entries = is_aligned<uint32_t>(entries);
  uint32_t coming_four = four_indices(index, kEach * lane, size, aligned);
  uint2 coming_symbols = four_symbols(symbols, kEach * lane, size, aligned);
  bool wrong = false;
  for (int64_t begin = 0; begin < size && !wrong; begin += kPiece) {
    const int count = static_cast<int>(size - begin < kPiece ? size - begin : kPiece);
    const bool whole = count == kPiece;
    const uint32_t four = coming_four;
    const uint2 packed = coming_symbols;
    const int64_t next = begin + kPiece + kEach * lane;
    coming_four = four_indices(index, next, size, aligned);
    coming_symbols = four_symbols(symbols, next, size, aligned);
    check.see(four);
    uint32_t info[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) info[k] = __ldg(infos + byte_of(four, static_cast<unsigned>(k)));
    if (!whole) {  // those that are not there are 0 and have neither bits nor an escape
#pragma unroll
      for (int k = 0; k < kEach; ++k) info[k] = kEach * lane + k < count ? info[k] : 1u << kRegularAt;
    }
    uint32_t numbers = 0;
    uint64_t low = 0;
    int low_bits = 0;
    bool beyond = false;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const SplitSymbol split(symbol_of(packed, k), info[k]);
      low |= uint64_t{split.low} << low_bits;
      low_bits += static_cast<int>(split.shift);
      numbers |= (split.is_within() ? static_cast<uint32_t>(split.entry) : kEscapeMark) << 8 * k;
      beyond = beyond || !split.is_within();
    }
    uint8_t* const out = entries + begin + kEach * lane;
    if (aligned_entries && whole) {
      *reinterpret_cast<uint32_t*>(out) = numbers;
    } else {
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        if (kEach * lane + k < count) out[k] = static_cast<uint8_t>(numbers >> 8 * k);
      }
    }
    if (__any_sync(kAll, low_bits != 0)) {
      const int behind = prefix_sum(low_bits, lane);
      put_bits(raw, raw_bit + behind - low_bits, low, low_bits);
      raw_bit += __shfl_sync(kAll, behind, 31);
    }
    if (__any_sync(kAll, beyond)) {
      const int bits = put_escapes(escapes, escape_bit, packed, info, lane);
      wrong = bits < 0;
      escape_bit += bits;
    }
    if (whole) {
      checksum.add(packed);
    } else {
      checksum.add(packed, count);
    }
  }
  if (__any_sync(kAll, wrong || check.found())) {
    report_first(task, s, first, last, lane);
    return;
  }
  const uint32_t crc = checksum.value();
  if (lane != 0) return;
  row.raw_bits = raw_bit;
  row.escape_bits = escape_bit;
  row.crc = crc;
}

}  // namespace

cudaError_t launch_rans_split(const RansEncodeCuda& task, cudaStream_t stream) {
  return AICR_LAUNCH(rans_split_kernel, static_cast<unsigned>(task.streams), 32, 0, stream, task);
}

}  // namespace aicr
