// Integer operators of the entropy networks, bit for bit as on the CPU: integer sums have no order.
//
// Linear: a block of 256 threads computes 64 rows x 64 outputs, a thread 4 x 4 of them. Inputs and weights
// come in pairs of int16, as one 32-bit word each, through shared memory: 16 pairs at a time, 8.1 KiB. Rows
// of a thread lie 16 apart and so do its outputs, so that a warp's reads of either fall into different banks
// or are broadcast.
//
// Others: one thread per number, neighbours along channels.
//
// Memory: linear reads x once per 64 outputs and the weights once per 64 rows; the others read and write
// once.
#include "cuda/integer_ops.cuh"

#include <climits>

#include "common/integer.hpp"
#include "cuda/launch.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64, kPairs = 16, kSide = 16, kEach = kTile / kSide;

__device__ __forceinline__ int32_t low_half(int32_t pair) {
  return static_cast<int16_t>(pair & 0xffff);
}
__device__ __forceinline__ int32_t high_half(int32_t pair) {
  return pair >> 16;
}

__global__ void __launch_bounds__(kThreads) integer_linear_kernel(IntegerLinearCuda task) {
  __shared__ int32_t inputs[kPairs][kTile + 1];
  __shared__ int32_t weights[kPairs][kTile];
  const int64_t columns = (task.outputs + kTile - 1) / kTile;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) / columns * kTile;
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) % columns * kTile;
  const int thread = static_cast<int>(threadIdx.x), tx = thread % kSide, ty = thread / kSide;
  const int64_t pairs = task.inputs / 2;
  const auto* x = reinterpret_cast<const int32_t*>(task.x);
  const auto* weight = reinterpret_cast<const int32_t*>(task.weight);

  int32_t sum[kEach][kEach] = {};
  for (int64_t begin = 0; begin < pairs; begin += kPairs) {
    for (int i = thread; i < kTile * kPairs; i += kThreads) {
      const int64_t row = first_row + i / kPairs, pair = begin + i % kPairs;
      inputs[i % kPairs][i / kPairs] = row < task.rows && pair < pairs ? x[row * pairs + pair] : 0;
      const int64_t output = first_output + i % kTile, other = begin + i / kTile;
      weights[i / kTile][i % kTile] =
          output < task.outputs && other < pairs ? weight[other * task.outputs + output] : 0;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      int32_t a[kEach], b[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        a[i] = inputs[k][ty + kSide * i];
        b[i] = weights[k][tx + kSide * i];
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          sum[i][j] += low_half(a[i]) * low_half(b[j]) + high_half(a[i]) * high_half(b[j]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int64_t output = first_output + tx + kSide * j;
    if (output >= task.outputs) continue;
    const int32_t bias = task.bias[output], shift = task.shift[output], slope = task.slope[output];
    const int32_t align = task.residual != nullptr ? task.residual_shift[output] : 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int64_t row = first_row + ty + kSide * i;
      if (row >= task.rows) continue;
      int32_t value = saturated(shifted(sum[i][j] + bias, shift));
      if (value < 0) value = shifted(value * slope, 15);
      const int64_t at = row * task.outputs + output;
      if (task.residual != nullptr) value = saturated(value + shifted(task.residual[at], align));
      task.out[at] = static_cast<int16_t>(value);
    }
  }
}

__device__ __forceinline__ int64_t own_number() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads) integer_depthwise_kernel(IntegerDepthwiseCuda task) {
  const int64_t at = own_number();
  if (at >= task.height * task.width * task.channels) return;
  const int64_t channel = at % task.channels, pixel = at / task.channels;
  const int64_t row = pixel / task.width, column = pixel % task.width;
  int32_t sum = task.bias[channel];
#pragma unroll
  for (int tap = 0; tap < 9; ++tap) {
    const int64_t y = row + tap / 3 - 1, x = column + tap % 3 - 1;
    if (y < 0 || y >= task.height || x < 0 || x >= task.width) continue;
    sum += static_cast<int32_t>(task.x[(y * task.width + x) * task.channels + channel]) *
           task.weight[tap * task.channels + channel];
  }
  task.out[at] = static_cast<int16_t>(saturated(shifted(sum, task.shift[channel])));
}

__global__ void __launch_bounds__(kThreads)
    integer_sum_kernel(int64_t numbers, int64_t channels, const int16_t* x, int16_t* out) {
  const int64_t at = own_number();
  if (at >= numbers) return;
  const int16_t* a = x + at / channels * 2 * channels + at % channels;
  out[at] = static_cast<int16_t>(saturated(static_cast<int32_t>(a[0]) + a[channels]));
}

__global__ void __launch_bounds__(kThreads)
    integer_gate_kernel(int64_t numbers, int64_t channels, int32_t shift, const int16_t* x, int16_t* out) {
  const int64_t at = own_number();
  if (at >= numbers) return;
  const int16_t* a = x + at / channels * 2 * channels + at % channels;
  out[at] = static_cast<int16_t>(saturated(shifted(static_cast<int32_t>(a[0]) * a[channels], shift)));
}

struct DeviceOctave {
  __device__ __forceinline__ int32_t operator()(int32_t m) const { return 31 - __clz(m); }
};

__global__ void __launch_bounds__(kThreads)
    integer_asinh_kernel(int64_t numbers, int64_t channels, const int32_t* value, const int32_t* exponent,
                         const int32_t* table, int16_t* out) {
  const int64_t at = own_number();
  if (at >= numbers) return;
  out[at] = static_cast<int16_t>(integer_asinh(value[at], exponent[at % channels], table, DeviceOctave{}));
}

int64_t blocks_for(int64_t numbers) {
  return (numbers + kThreads - 1) / kThreads;
}

}  // namespace

cudaError_t launch_integer_linear(const IntegerLinearCuda& task, cudaStream_t stream) {
  const int64_t blocks = ((task.rows + kTile - 1) / kTile) * ((task.outputs + kTile - 1) / kTile);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH(integer_linear_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream, task);
}

cudaError_t launch_integer_depthwise(const IntegerDepthwiseCuda& task, cudaStream_t stream) {
  const int64_t blocks = blocks_for(task.height * task.width * task.channels);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH(integer_depthwise_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream, task);
}

cudaError_t launch_integer_sum(int64_t pixels, int64_t channels, const int16_t* x, int16_t* out,
                               cudaStream_t stream) {
  const int64_t blocks = blocks_for(pixels * channels);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH(integer_sum_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream,
                     pixels * channels, channels, x, out);
}

cudaError_t launch_integer_gate(int64_t pixels, int64_t channels, int32_t shift, const int16_t* x,
                                int16_t* out, cudaStream_t stream) {
  const int64_t blocks = blocks_for(pixels * channels);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH(integer_gate_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream,
                     pixels * channels, channels, shift, x, out);
}

cudaError_t launch_integer_asinh(int64_t pixels, int64_t channels, const int32_t* value,
                                 const int32_t* exponent, const int32_t* table, int16_t* out,
                                 cudaStream_t stream) {
  const int64_t blocks = blocks_for(pixels * channels);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH(integer_asinh_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream,
                     pixels * channels, channels, value, exponent, table, out);
}

}  // namespace aicr
