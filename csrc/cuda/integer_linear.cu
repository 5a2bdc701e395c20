// integer_linear on CUDA (aicr_ext/ops/integer.py), bit for bit as on the CPU: products of int16 by tensor
// cores, which multiply bytes.
//
// Formula: a number is 256 h + l, of its signed high byte and its unsigned low byte, so
//   sum of x w = 2^16 (sum of h h') + 2^8 (sum of h l' + sum of l h') + sum of l l'.
// What is on the right may leave int32 and wraps around there; the sum on the left fits, by the choice of the
// weights, and both are equal modulo 2^32.
//
// Layout: two neighbouring inputs are a word of 32 bits; x has a row of words for each pixel, the weights
// have one for each pair of inputs, of all outputs.
//
// Tile: a block computes 128 rows, or 64 where there are few, by 64 outputs, and each warp 32 x 32 of them.
// It walks over the inputs, 64 at a time, while those of later steps are copied. A lane takes words apart
// into bytes when it has loaded them. Products of bytes are of 16 x 32 by 32 x 8; the 32 inputs may have any
// order that is the same on both sides, and have the one that ldmatrix gives x: each of the four lanes of a
// row has two neighbours of every eight. Column c of product j is output 4c + j of the warp, so that a lane
// reads the weights of four products at once and has eight neighbouring results. For 32 x 32 sums over 32
// inputs a warp multiplies 32 times, permutes bytes 32 times and loads 8 times 16 bytes for each lane.
//
// Shared: 3 steps of 27 KiB, or 4 of 18 KiB.
//
// Memory: x read once per 64 outputs and the weights once per tile of rows, mostly from the second cache: one
// byte for 43 operations, or for 32; the residual read once and out written once. 2 operations per row, input
// and output; 8 of bytes.
//
// Determinism: sums of integers have no order.
#include <algorithm>
#include <climits>

#include "common/integer.hpp"
#include "cuda/async_copy.cuh"
#include "cuda/integer_ops.cuh"
#include "cuda/launch.cuh"
#include "cuda/matrix.cuh"
#include "cuda/vectors.cuh"
#include "cuda/warp.cuh"

namespace aicr {
namespace {

constexpr int kOutputs = 64, kSide = 32;  // of a block, and of a warp, which has as many rows
constexpr int kPairs = 32, kGroup = 16;   // pairs of inputs of a step, and of a product
constexpr int kEach = 8;                  // neighbouring outputs of a lane
// From so many blocks on they may be large: about two for each multiprocessor.
constexpr int64_t kManyBlocks = 256;
constexpr int64_t kMost = INT_MAX - 256;  // rows, inputs and outputs, so that tiles end before 2^31

// Distances of lines in shared memory, in words: lanes that read at once find different banks.
constexpr int kInputLine = kPairs + 4, kWeightLine = kOutputs + 8;

template <int kRows>
constexpr int kThreads = kRows * kOutputs / kSide;
// Beside one another on a multiprocessor, at least: registers for 256 threads.
template <int kRows>
constexpr int kBlocks = 256 / kThreads<kRows>;
// Of inputs and weights in shared memory.
template <int kRows>
constexpr int kSteps = kRows == 64 ? 4 : 3;
template <int kRows>
constexpr int kStepWords = kRows * kInputLine + kPairs * kWeightLine;

// How a block copies kLines lines of kWords words to lines kLine words apart, kEach at a time: a thread has
// the same words of every kAtOnce-th line.
template <int kBlockThreads, int kLines, int kWords, int kLine, int kEach>
struct Lines {
  static constexpr int kPieces = kWords / kEach, kAtOnce = kBlockThreads / kPieces;
  static_assert(kBlockThreads % kPieces == 0 && kLines % kAtOnce == 0,
                "all threads have equally many pieces");

  static __device__ __forceinline__ int own_line() { return static_cast<int>(threadIdx.x) / kPieces; }
  static __device__ __forceinline__ int own_word() { return static_cast<int>(threadIdx.x) % kPieces * kEach; }

  // Begins to. `from` is the thread's first piece, `lines` how many have its words from there on; behind them
  // it writes zeros. `any` may be read, but is not.
  static __device__ __forceinline__ void copy(const uint32_t* from, int64_t stride, int lines,
                                              const void* any, uint32_t* to) {
    to += own_line() * kLine + own_word();
#pragma unroll 4
    for (int line = 0; line < kLines; line += kAtOnce) {
      copy_async<kEach * sizeof(uint32_t)>(to + line * kLine, line < lines ? from : any, line < lines);
      from += kAtOnce * stride;
    }
  }
};

// The high bytes of four numbers, and the low ones.
__device__ __forceinline__ uint32_t high_bytes(uint32_t first, uint32_t second) {
  return __byte_perm(first, second, 0x7531);
}
__device__ __forceinline__ uint32_t low_bytes(uint32_t first, uint32_t second) {
  return __byte_perm(first, second, 0x6420);
}

// The sums of a warp, a product of 16 x 8 for each half of its rows and quarter of its outputs.
struct Sums {
  int32_t high[2][4][4], middle[2][4][4], low[2][4][4];

  // Adds a step: `inputs` from the first row of the warp on, `weights` from its first output.
  __device__ __forceinline__ void add(const uint32_t* inputs, const uint32_t* weights, int lane) {
    const uint32_t* own_inputs = inputs + (lane / 16 * 8 + lane % 8) * kInputLine + lane / 8 % 2 * 4;
    const uint32_t* own_weights = weights + lane % 4 * kWeightLine + lane / 4 * 4;
#pragma unroll
    for (int pair = 0; pair < kPairs; pair += kGroup) {
      uint32_t high_weights[4][2], low_weights[4][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t* at = own_weights + (pair + 8 * i) * kWeightLine;
        const auto first = *reinterpret_cast<const Vector<uint32_t, 4>*>(at);
        const auto second = *reinterpret_cast<const Vector<uint32_t, 4>*>(at + 4 * kWeightLine);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          high_weights[j][i] = high_bytes(first.values[j], second.values[j]);
          low_weights[j][i] = low_bytes(first.values[j], second.values[j]);
        }
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        uint32_t high_inputs[4], low_inputs[4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          uint32_t words[4];
          load_matrices<4>(words, own_inputs + m * 16 * kInputLine + pair + 8 * i);
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            high_inputs[2 * i + row] = high_bytes(words[2 * row], words[2 * row + 1]);
            low_inputs[2 * i + row] = low_bytes(words[2 * row], words[2 * row + 1]);
          }
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mma_m16n8k32<int8_t, int8_t>(high[m][j], high_inputs, high_weights[j]);
          mma_m16n8k32<int8_t, uint8_t>(middle[m][j], high_inputs, low_weights[j]);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mma_m16n8k32<uint8_t, uint8_t>(low[m][j], low_inputs, low_weights[j]);
          mma_m16n8k32<uint8_t, int8_t>(middle[m][j], low_inputs, high_weights[j]);
        }
      }
    }
  }

  // That of the lane's row lane / 4 + 8 * part and of its output `output`.
  __device__ __forceinline__ int32_t total(int part, int output) const {
    const int m = part / 2, j = output % 4, i = part % 2 * 2 + output / 4;
    return static_cast<int32_t>((static_cast<uint32_t>(high[m][j][i]) << 16) +
                                (static_cast<uint32_t>(middle[m][j][i]) << 8) +
                                static_cast<uint32_t>(low[m][j][i]));
  }
};

// The numbers of eight outputs, zeros for those that are not there.
template <bool kVectors>
__device__ __forceinline__ void load_eight(const int32_t* from, int there, int32_t (&to)[kEach]) {
  if constexpr (kVectors) {
    const auto* vectors = reinterpret_cast<const Vector<int32_t, 4>*>(from);
#pragma unroll
    for (int i = 0; i < kEach; ++i) to[i] = vectors[i / 4].values[i % 4];
  } else {
#pragma unroll
    for (int i = 0; i < kEach; ++i) to[i] = i < there ? from[i] : 0;
  }
}

// Writes what the matrix has of a lane's results, from these rows and outputs of its warp on.
template <bool kVectors>
__device__ __forceinline__ void store_results(const IntegerLinearCuda& task, const Sums& sums, int first_row,
                                              int first_output, int lane) {
  using Words = Vector<uint32_t, kEach / 2>;
  const int output = first_output + lane % 4 * kEach;
  const int there = static_cast<int>(task.outputs) - output;
  if (there <= 0) return;
  int32_t bias[kEach], shift[kEach], slope[kEach], align[kEach] = {};
  load_eight<kVectors>(task.bias + output, there, bias);
  load_eight<kVectors>(task.shift + output, there, shift);
  load_eight<kVectors>(task.slope + output, there, slope);
  if (task.residual != nullptr) load_eight<kVectors>(task.residual_shift + output, there, align);
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const int row = first_row + part * 8 + lane / 4;
    if (row >= task.rows) return;
    const int64_t at = row * task.outputs + output;
    int32_t values[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      values[i] = saturated(shifted(sums.total(part, i) + bias[i], shift[i]));
      if (values[i] < 0) values[i] = shifted(values[i] * slope[i], 15);
    }
    if (task.residual != nullptr) {
      Vector<int16_t, kEach> residual = {};
      if constexpr (kVectors) {
        residual = *reinterpret_cast<const Vector<int16_t, kEach>*>(task.residual + at);
      } else {
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          if (i < there) residual.values[i] = task.residual[at + i];
        }
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i)
        values[i] = saturated(values[i] + shifted(residual.values[i], align[i]));
    }
    if constexpr (kVectors) {
      Words words;
#pragma unroll
      for (int i = 0; i < kEach / 2; ++i) {
        words.values[i] = __byte_perm(static_cast<uint32_t>(values[2 * i]),
                                      static_cast<uint32_t>(values[2 * i + 1]), 0x5410);
      }
      *reinterpret_cast<Words*>(task.out + at) = words;
    } else {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (i < there) task.out[at + i] = static_cast<int16_t>(values[i]);
      }
    }
  }
}

// kVectors: rows of all matrices are whole vectors, and everything is aligned to them.
template <int kRows, bool kVectors>
__global__ void __launch_bounds__(kThreads<kRows>, kBlocks<kRows>)
    integer_linear_kernel(IntegerLinearCuda task) {
  constexpr int kPiece = kVectors ? 4 : 1, kAhead = kSteps<kRows> - 1;
  AICR_DYNAMIC_SHARED(uint32_t, shared);
  const auto columns = static_cast<int>((task.outputs + kOutputs - 1) / kOutputs);
  const int first_row = static_cast<int>(blockIdx.x) / columns * kRows;
  const int first_output = static_cast<int>(blockIdx.x) % columns * kOutputs;
  const int rows = static_cast<int>(task.rows) - first_row;  // from there on
  const int outputs = static_cast<int>(task.outputs) - first_output;
  const int pairs = static_cast<int>(task.inputs / 2), steps = (pairs + kPairs - 1) / kPairs;
  using InputLines = Lines<kThreads<kRows>, kRows, kPairs, kInputLine, kPiece>;
  using WeightLines = Lines<kThreads<kRows>, kPairs, kOutputs, kWeightLine, kPiece>;
  // The first pieces of this thread in the step to be copied next, and the lines that have such.
  const auto* x = reinterpret_cast<const uint32_t*>(task.x) +
                  int64_t{first_row + InputLines::own_line()} * pairs + InputLines::own_word();
  const auto* weight = reinterpret_cast<const uint32_t*>(task.weight) +
                       WeightLines::own_line() * task.outputs + first_output + WeightLines::own_word();
  const int input_lines = rows - InputLines::own_line();
  int words = pairs - InputLines::own_word();
  int weight_lines = WeightLines::own_word() < outputs ? pairs - WeightLines::own_line() : 0;
  const auto place_of = [&](int step) { return shared + step % kSteps<kRows> * kStepWords<kRows>; };
  const auto copy = [&](int step) {
    uint32_t* place = place_of(step);
    InputLines::copy(x, pairs, words > 0 ? input_lines : 0, task.x, place);
    WeightLines::copy(weight, task.outputs, weight_lines, task.weight, place + kRows * kInputLine);
    x += kPairs;
    words -= kPairs;
    weight += kPairs * task.outputs;
    weight_lines -= kPairs;
  };

  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int row = warp / (kOutputs / kSide) * kSide, output = warp % (kOutputs / kSide) * kSide;
  const bool busy = row < rows && output < outputs;  // the whole warp is or is not
  Sums sums = {};
#pragma unroll 1
  for (int step = 0; step < kAhead; ++step) {
    if (step < steps) copy(step);
    commit_copies();
  }
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kAhead - 1>();
    __syncthreads();  // also behind the last product with what is overwritten next
    if (step + kAhead < steps) copy(step + kAhead);
    commit_copies();
    const uint32_t* place = place_of(step);
    if (busy) sums.add(place + row * kInputLine, place + kRows * kInputLine + output, lane);
  }
  if (busy) store_results<kVectors>(task, sums, first_row + row, first_output + output, lane);
}

template <int kRows>
int64_t blocks_of(const IntegerLinearCuda& task) {
  return ((task.rows + kRows - 1) / kRows) * ((task.outputs + kOutputs - 1) / kOutputs);
}

template <int kRows, bool kVectors>
cudaError_t launch(const IntegerLinearCuda& task, cudaStream_t stream) {
  const int64_t blocks = blocks_of<kRows>(task);
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH((integer_linear_kernel<kRows, kVectors>), static_cast<unsigned>(blocks), kThreads<kRows>,
                     kSteps<kRows> * kStepWords<kRows> * sizeof(uint32_t), stream, task);
}

}  // namespace

cudaError_t launch_integer_linear(const IntegerLinearCuda& task, cudaStream_t stream) {
  if (task.rows * task.outputs == 0) return cudaSuccess;
  if (std::max({task.rows, task.inputs, task.outputs}) > kMost) return cudaErrorInvalidConfiguration;
  const bool vectors = task.inputs % 8 == 0 && task.outputs % kEach == 0 &&
                       aligned_to(kVectorBytes, task.x, task.weight, task.bias, task.shift, task.slope,
                                  task.residual, task.residual_shift, task.out);
  if (!vectors) return launch<64, false>(task, stream);
  return blocks_of<128>(task) >= kManyBlocks ? launch<128, true>(task, stream)
                                             : launch<64, true>(task, stream);
}

}  // namespace aicr
