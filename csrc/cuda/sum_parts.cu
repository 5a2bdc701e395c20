// first[i], second[i] = the sums over all parts of their values, in double.
//
// Tile: a block has 32 values. A lane has one of them, a warp every 32nd part; its loads are four at a time
// on their way.
//
// Shared: 8 KiB.
//
// Memory: the parts read once.
//
// Determinism: the order of a sum depends on the number of parts only. No atomics.
#include "cuda/sum_parts.cuh"

#include <climits>

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace aicr {
namespace {

constexpr int kWarps = 32, kThreads = kWarps * kWarp;

__global__ void __launch_bounds__(kThreads) sum_parts_kernel(SumPartsCuda a) {
  __shared__ double sums[kWarps][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t value = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  const int64_t values = a.first_values + a.second_values;
  double sum = 0.0;
  if (value < values) {
#pragma unroll 4
    for (int64_t part = warp; part < a.count; part += kWarps) sum += a.parts[part * values + value];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || value >= values) return;
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += sums[w][lane];
  if (value < a.first_values) {
    a.first[value] = static_cast<float>(sum);
  } else if (a.second != nullptr) {
    a.second[value - a.first_values] = static_cast<float>(sum);
  }
}

}  // namespace

cudaError_t launch_sum_parts(const SumPartsCuda& arguments, cudaStream_t stream) {
  const int64_t blocks = (arguments.first_values + arguments.second_values + kWarp - 1) / kWarp;
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH(sum_parts_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream, arguments);
}

}  // namespace aicr
