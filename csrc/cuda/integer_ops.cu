// Integer operators of the entropy networks but integer_linear, bit for bit as on the CPU: integer sums have
// no order. One thread per number, neighbours along channels; each reads and writes the memory once.
#include "cuda/integer_ops.cuh"

#include <climits>

#include "common/integer.hpp"
#include "cuda/launch.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256;

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
