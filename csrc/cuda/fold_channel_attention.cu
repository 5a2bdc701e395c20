// out = W_out blockdiag(A) with A = softmax over keys of scores / (|q| |k|) * temperature, for each
// picture; in float32.
//
// Tile: a block has 32 x 32 elements of the result of one group. It first forms the largest logit and the
// sum of the exponentials of every query of its group, a warp a query at a time; then it forms A again, 32
// x 32 elements at a time in shared memory, and adds W_out's times A's to the four results of each thread.
//
// Shared: 8.1 KiB, and four floats per channel of a group: 192 bytes for 12 channels, 32 KiB for 2048.
//
// Memory: scores and weights come from the caches; all is small beside a feature map. 2 outputs depth^2
// FLOP per group and picture, and two exponentials per score and 32 x 32 results.
//
// Determinism: one thread forms one result, over queries in their order; sums over keys have one order. No
// atomics.
#include "cuda/fold_channel_attention.cuh"

#include <climits>

#include "cuda/dispatch.cuh"
#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"
#include "cuda/warp.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kTile = 32, kEach = kTile / kWarps;
constexpr int kRowTerms = 4;  // floats of shared memory per channel of a group

// What the rows and columns of a group's scores are scaled by.
struct Logits {
  const float *scores, *query_scale, *key_scale;
  float temperature;
  int depth;

  __device__ __forceinline__ float operator()(int query, int key) const {
    return scores[static_cast<int64_t>(query) * depth + key] * query_scale[query] * key_scale[key] *
           temperature;
  }
};

// 1 / |q| of a sum of squares, which is 0 where a channel is.
__device__ __forceinline__ float inverse_norm(float squares) {
  return 1.0f / sqrtf(fmaxf(squares, 1e-24f));
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    fold_channel_attention_kernel(FoldChannelAttentionCuda a, int64_t row_tiles, int64_t column_tiles) {
  AICR_DYNAMIC_SHARED(float, row_terms);
  __shared__ float weights[kTile][kTile + 1], attention[kTile][kTile];
  const int depth = static_cast<int>(a.depth);
  int64_t rest = blockIdx.x;
  const int first_key = static_cast<int>(rest % column_tiles) * kTile;
  rest /= column_tiles;
  const int64_t first_output = rest % row_tiles * kTile;
  rest /= row_tiles;
  const int64_t group = rest % a.groups, picture = rest / a.groups, in_batch = picture * a.groups + group;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;

  float *query_scale = row_terms, *key_scale = query_scale + depth;
  float *largest = key_scale + depth, *share = largest + depth;
  for (int i = static_cast<int>(threadIdx.x); i < depth; i += kThreads) {
    query_scale[i] = inverse_norm(a.q_norm[in_batch * depth + i]);
    key_scale[i] = inverse_norm(a.k_norm[in_batch * depth + i]);
  }
  __syncthreads();
  const Logits logits{a.scores + in_batch * depth * depth, query_scale, key_scale,
                      weight_at<T>(a.temperature, a.temperature_is_float32, group), depth};
  for (int query = warp; query < depth; query += kWarps) {
    float most = -INFINITY;
    for (int key = lane; key < depth; key += kWarp) most = fmaxf(most, logits(query, key));
    for (int step = kWarp / 2; step > 0; step /= 2) {
      most = fmaxf(most, __shfl_xor_sync(kAll, most, step));
    }
    float sum = 0.0f;
    for (int key = lane; key < depth; key += kWarp) sum += expf(logits(query, key) - most);
    sum = sum_over(sum, kWarp);
    if (lane == 0) {
      largest[query] = most;
      share[query] = 1.0f / sum;
    }
  }

  const T* project_out = static_cast<const T*>(a.project_out);
  const int64_t channels = a.groups * a.depth;
  float sums[kEach] = {};
  for (int first_query = 0; first_query < depth; first_query += kTile) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = warp + kWarps * i, query = first_query + row, key = first_key + lane;
      const bool inside = query < depth && key < depth;
      attention[row][lane] = inside ? expf(logits(query, key) - largest[query]) * share[query] : 0.0f;
      const int64_t output = first_output + row;
      const int of_query = first_query + lane;
      weights[row][lane] = output < a.outputs && of_query < depth
                               ? to_float(project_out[output * channels + group * depth + of_query])
                               : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int query = 0; query < kTile; ++query) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) sums[i] += weights[warp + kWarps * i][query] * attention[query][lane];
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int64_t output = first_output + warp + kWarps * i;
    const int key = first_key + lane;
    if (output < a.outputs && key < depth) {
      a.out[(picture * a.outputs + output) * channels + group * depth + key] = sums[i];
    }
  }
}

template <typename T>
cudaError_t launch(const FoldChannelAttentionCuda& a, cudaStream_t stream) {
  const int64_t row_tiles = (a.outputs + kTile - 1) / kTile, column_tiles = (a.depth + kTile - 1) / kTile;
  const int64_t blocks = a.batch * a.groups * row_tiles * column_tiles;
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX || a.depth > kMostFoldedDepth) return cudaErrorInvalidConfiguration;
  const size_t shared = kRowTerms * a.depth * sizeof(float);
  return AICR_LAUNCH((fold_channel_attention_kernel<T>), static_cast<unsigned>(blocks), kThreads, shared,
                     stream, a, row_tiles, column_tiles);
}

}  // namespace

cudaError_t launch_fold_channel_attention(const FoldChannelAttentionCuda& arguments, cudaStream_t stream) {
  return dispatch_type(arguments.type,
                       [&](auto tag) { return launch<typename decltype(tag)::Type>(arguments, stream); });
}

}  // namespace aicr
