// out = GELU(a) * b, or a * b, for the halves a and b of dwconv_{3x3}(x) + bias; zero padding, in one
// pass; sums and gate in float32.
//
// Layout: one kernel serves channels-last, where two channels of a thread lie side by side, and planes and
// odd channels, where a thread has one. Neighbouring threads lie along channels and then columns, or along
// columns and then channels: no thread idles but in the last block of a block of rows.
//
// Tile: a thread owns a column of its channels in both halves and walks down a block of 4 ... 32 rows.
// Each row of x it reads, with the columns on both sides, goes into the three rows of sums around it, in
// registers.
//
// Shared: none. What neighbours read too comes from the first cache, where each value is read three times.
//
// Memory: x read once, out written once; of x two rows per block of rows again, mostly from the second
// cache. 36 FLOP and one erf per element of the result.
//
// Determinism: every output is computed by one thread, row by row, whatever the blocks. No atomics.
#include "cuda/gated_depthwise_conv3x3.cuh"

#include <climits>

#include "cuda/depthwise3x3.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/gelu.cuh"
#include "cuda/launch.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256;
constexpr int kMostRows = 32, kFewestRows = 4;
constexpr int64_t kEnoughBlocks = 1024;  // so many blocks busy any device

// How a shape is cut into blocks; the last axis of the grid is the only one.
struct Tiling {
  int64_t parts, row_blocks, blocks;
  int rows;
};

Tiling make_tiling(const GatedDepthwiseCuda& a, int V) {
  Tiling t;
  t.parts = (a.width * (a.channels / V) + kThreads - 1) / kThreads;
  t.rows = kMostRows;
  const auto row_blocks = [&] { return (a.height + t.rows - 1) / t.rows; };
  while (t.rows > kFewestRows && a.batch * row_blocks() * t.parts < kEnoughBlocks) t.rows /= 2;
  t.row_blocks = row_blocks();
  t.blocks = a.batch * t.row_blocks * t.parts;
  return t;
}

template <typename T, int V>
__device__ __forceinline__ void load_terms(const GatedDepthwiseCuda& a, int64_t channel,
                                           float (&weight)[kDepthwiseTaps][V], float (&bias)[V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
#pragma unroll
    for (int t = 0; t < kDepthwiseTaps; ++t) {
      weight[t][i] = weight_at<T>(a.weight, a.weight_is_float32, (channel + i) * kDepthwiseTaps + t);
    }
    bias[i] = a.bias != nullptr ? weight_at<T>(a.bias, a.bias_is_float32, channel + i) : 0.0f;
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    gated_depthwise_conv3x3_kernel(GatedDepthwiseCuda a, Tiling tiling) {
  // Neighbouring blocks share columns, then rows: what they read twice is still in the cache.
  int64_t rest = blockIdx.x;
  const int64_t item = rest % tiling.parts * kThreads + threadIdx.x;
  rest /= tiling.parts;
  const int64_t top = rest % tiling.row_blocks * tiling.rows, picture = rest / tiling.row_blocks;
  const int64_t bottom = top + tiling.rows < a.height ? top + tiling.rows : a.height;
  const int64_t vectors = a.channels / V, pixels = a.height * a.width;
  if (item >= a.width * vectors) return;

  const int64_t column = a.channels_last ? item / vectors : item % a.width;
  const int64_t channel = a.channels_last ? item % vectors * V : item / a.width;
  const int64_t x_column = a.channels_last ? 2 * a.channels : 1,
                out_column = a.channels_last ? a.channels : 1;
  const int64_t channel_stride = a.channels_last ? 1 : pixels, half = a.channels * channel_stride;
  const T* x = static_cast<const T*>(a.x) + picture * 2 * a.channels * pixels + channel * channel_stride +
               column * x_column;
  T* out =
      static_cast<T*>(a.out) + picture * a.channels * pixels + channel * channel_stride + column * out_column;
  const bool before = column > 0, after = column + 1 < a.width;

  float gate_weight[kDepthwiseTaps][V], gate_bias[V], value_weight[kDepthwiseTaps][V], value_bias[V];
  load_terms<T, V>(a, channel, gate_weight, gate_bias);
  load_terms<T, V>(a, a.channels + channel, value_weight, value_bias);
  DepthwiseSums<V> gate = {}, value = {};
  for (int64_t h = top - 1; h <= bottom; ++h) {
    gate.next(gate_bias);
    value.next(value_bias);
    if (h >= 0 && h < a.height) {
      const T* row = x + h * a.width * x_column;
      float of_gate[3][V], of_value[3][V];
      load_columns<V>(row, x_column, before, after, of_gate);
      load_columns<V>(row + half, x_column, before, after, of_value);
      gate.add(of_gate, gate_weight);
      value.add(of_value, value_weight);
    }
    if (h <= top) continue;
    float result[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      result[i] = (a.gelu ? gelu(gate.rows[0][i]) : gate.rows[0][i]) * value.rows[0][i];
    }
    store_floats<V>(result, out + (h - 1) * a.width * out_column);
  }
}

template <typename T, int V>
cudaError_t launch(const GatedDepthwiseCuda& a, cudaStream_t stream) {
  const Tiling tiling = make_tiling(a, V);
  if (tiling.blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH((gated_depthwise_conv3x3_kernel<T, V>), static_cast<unsigned>(tiling.blocks), kThreads,
                     0, stream, a, tiling);
}

template <typename T>
cudaError_t launch_vectors(const GatedDepthwiseCuda& a, cudaStream_t stream) {
  if (a.batch * a.channels * a.height * a.width == 0) return cudaSuccess;
  const bool pairs = a.channels_last && a.channels % 2 == 0 && aligned_to(2 * sizeof(T), a.x, a.out);
  return pairs ? launch<T, 2>(a, stream) : launch<T, 1>(a, stream);
}

}  // namespace

cudaError_t launch_gated_depthwise_conv3x3(const GatedDepthwiseCuda& arguments, cudaStream_t stream) {
  return dispatch_type(arguments.type, [&](auto tag) {
    return launch_vectors<typename decltype(tag)::Type>(arguments, stream);
  });
}

}  // namespace aicr
