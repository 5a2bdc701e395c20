// scores = q k^T of each group of channels, and the sums of squares of q and k, over the pixels of a
// picture, for the halves q and k of dwconv_{3x3}(qk) + bias; zero padding; sums in float32. q and k never
// lie in device memory; in shared memory they have the type of qk.
//
// Layout: channels-last, neighbouring threads lie along channels, of 16-bit types two each; as planes,
// along columns.
//
// Tile: a block has a tile of 16 rows x 32 ... 256 columns of one group, or of 64 x 64 scores of it. It
// puts q and k of 64 pixels at a time into shared memory, each thread walking down a column of a channel,
// and adds to the scores of all (gram_scores.cuh), by tensor cores where qk has 16 bits. A second kernel
// adds up the tiles.
//
// Shared: q and k of 64 pixels, later the scores, and the weights: 6.3 KiB for groups of up to 16 channels
// of 16-bit types (float32 17.3 KiB), 37 KiB (38 KiB) for 64.
//
// Memory: qk read once, and of it two rows per 16 again, mostly from the second cache; groups of more than
// 64 channels read it once per 64 of them. Written and read again: a float per score and tile. 18 FLOP per
// element of qk and 2 per pixel and score.
//
// Determinism: tiles depend on the size of a picture and its channels only, and the order of all sums on
// them, the type and the layout. No atomics.
#include "cuda/depthwise_gram.cuh"

#include <algorithm>
#include <climits>

#include "cuda/depthwise3x3.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/gram_scores.cuh"
#include "cuda/launch.cuh"

namespace aicr {
namespace {

constexpr int kThreads = kGramThreads, kChunk = kGramPixels;
constexpr int kBlocks = 2;  // at least, beside one another on a multiprocessor
constexpr int kTileRows = 16, kFewestColumns = 32, kMostColumns = 256;
constexpr int64_t kManyBlocks = 4096;  // beyond that tiles become larger, so that fewer sums are written
constexpr int kLargestDepth = 64;
constexpr int kReduceElements = 32, kReduceSlices = kThreads / kReduceElements;

// How a picture is cut into tiles. `values`: sums of a tile, the scores of all groups and the norms of q and
// k.
struct Tiling {
  int64_t depth, sides, row_tiles, column_tiles, values;
  int columns;

  __host__ __device__ int64_t tiles() const { return row_tiles * column_tiles; }
};

Tiling make_tiling(const DepthwiseGramCuda& a) {
  Tiling t{};
  t.depth = a.channels / a.groups;
  t.sides = (t.depth + kLargestDepth - 1) / kLargestDepth;
  t.values = a.channels * t.depth + 2 * a.channels;
  t.row_tiles = (a.height + kTileRows - 1) / kTileRows;
  for (t.columns = kFewestColumns;; t.columns *= 2) {
    t.column_tiles = (a.width + t.columns - 1) / t.columns;
    if (t.columns == kMostColumns || t.tiles() * a.groups * t.sides * t.sides <= kManyBlocks) return t;
  }
}

// The shared memory of a block for groups of up to D channels, in bytes: the pixels of a chunk, later the
// sums.
template <typename T, int D>
constexpr size_t kShared =
    std::max(kChunk * kGramPixelValues<T, D> * sizeof(T), GramScores<T, D>::kSlices * D * D * sizeof(float));

// What a block works on.
struct Task {
  int64_t picture, tile, group, first_query, first_key;

  __device__ Task(const DepthwiseGramCuda& a, const Tiling& t, int D) {
    int64_t rest = blockIdx.x;
    first_key = rest % t.sides * D;
    rest /= t.sides;
    first_query = rest % t.sides * D;
    rest /= t.sides;
    group = rest % a.groups;
    rest /= a.groups;
    tile = rest % t.tiles();
    picture = rest / t.tiles();
  }

  // The channel of qk whose values lie at `n` of 2 D in shared memory, or -1.
  __device__ int64_t channel(const DepthwiseGramCuda& a, const Tiling& t, int D, int n) const {
    const int64_t in_group = n < D ? first_query + n : first_key + n - D;
    if (in_group >= t.depth) return -1;
    return (n < D ? 0 : a.channels) + group * t.depth + in_group;
  }
};

// q and k of the chunk that begins at (top, left), one or two channels of a column after the other.
template <typename T, int D, int V>
__device__ __forceinline__ void convolve_chunk(const DepthwiseGramCuda& a, const Tiling& tiling,
                                               const Task& task, int rows, int columns, int64_t top,
                                               int64_t left, const float (&terms)[kDepthwiseTaps + 1][2 * D],
                                               T* chunk) {
  constexpr int kVectors = 2 * D / V, kPixel = kGramPixelValues<T, D>;
  const int64_t column_stride = a.channels_last ? 2 * a.channels : 1;
  const int64_t channel_stride = a.channels_last ? 1 : a.height * a.width;
  const T* picture = static_cast<const T*>(a.qk) + task.picture * 2 * a.channels * a.height * a.width;
  for (int item = static_cast<int>(threadIdx.x); item < columns * kVectors; item += kThreads) {
    const int n = (a.channels_last ? item % kVectors : item / columns) * V;
    const int in_chunk = a.channels_last ? item / kVectors : item % columns;
    const int64_t channel = task.channel(a, tiling, D, n), column = left + in_chunk;
    T* to = chunk + in_chunk * kPixel + n;
    const int to_stride = columns * kPixel;
    const float zeros[V] = {};
    if (channel < 0 || column >= a.width) {
      for (int row = 0; row < rows; ++row) store_floats<V>(zeros, to + row * to_stride);
      continue;
    }
    float weight[kDepthwiseTaps][V], bias[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
#pragma unroll
      for (int tap = 0; tap < kDepthwiseTaps; ++tap) weight[tap][i] = terms[tap][n + i];
      bias[i] = terms[kDepthwiseTaps][n + i];
    }
    const T* x = picture + channel * channel_stride + column * column_stride;
    DepthwiseSums<V> sums = {};
    for (int row = -1; row <= rows; ++row) {
      const int64_t h = top + row;
      sums.next(bias);
      if (h >= 0 && h < a.height) {
        float around[3][V];
        load_columns<V>(x + h * a.width * column_stride, column_stride, column > 0, column + 1 < a.width,
                        around);
        sums.add(around, weight);
      }
      if (row < 1) continue;
      if (h <= a.height) {
        store_floats<V>(sums.rows[0], to + (row - 1) * to_stride);
      } else {
        store_floats<V>(zeros, to + (row - 1) * to_stride);
      }
    }
  }
}

template <typename T, int D, int V>
__global__ void __launch_bounds__(kThreads, kBlocks)
    depthwise_gram_kernel(DepthwiseGramCuda a, Tiling tiling) {
  constexpr int kNormSlices = kThreads / (2 * D);
  alignas(16) __shared__ unsigned char shared[kShared<T, D>];
  __shared__ float terms[kDepthwiseTaps + 1][2 * D];
  const Task task(a, tiling, D);
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < (kDepthwiseTaps + 1) * 2 * D; i += kThreads) {
    const int tap = i / (2 * D), n = i % (2 * D);
    const int64_t channel = task.channel(a, tiling, D, n);
    float term = 0.0f;
    if (channel >= 0 && tap < kDepthwiseTaps) {
      term = weight_at<T>(a.weight, a.weight_is_float32, channel * kDepthwiseTaps + tap);
    } else if (channel >= 0 && a.bias != nullptr) {
      term = weight_at<T>(a.bias, a.bias_is_float32, channel);
    }
    terms[tap][n] = term;
  }
  __syncthreads();

  // Norms: a thread has one channel, of every kNormSlices-th pixel.
  T* chunk = reinterpret_cast<T*>(shared);
  const int norm_slice = thread / (2 * D), norm_of = thread % (2 * D);
  GramScores<T, D> scores;
  float norm = 0.0f;

  const int rows = a.channels_last ? kTileRows : kChunk / kTileRows, columns = kChunk / rows;
  const int64_t first_row = task.tile / tiling.column_tiles * kTileRows;
  const int64_t first_column = task.tile % tiling.column_tiles * tiling.columns;
  const int64_t last_row = first_row + kTileRows < a.height ? first_row + kTileRows : a.height;
  const int64_t last_column =
      first_column + tiling.columns < a.width ? first_column + tiling.columns : a.width;
  for (int64_t top = first_row; top < last_row; top += rows) {
    for (int64_t left = first_column; left < last_column; left += columns) {
      convolve_chunk<T, D, V>(a, tiling, task, rows, columns, top, left, terms, chunk);
      __syncthreads();
      scores.add(chunk, thread);
      if (norm_slice < kNormSlices) {
        for (int pixel = norm_slice; pixel < kChunk; pixel += kNormSlices) {
          const float value = to_float(chunk[pixel * kGramPixelValues<T, D> + norm_of]);
          norm += value * value;
        }
      }
      __syncthreads();
    }
  }

  float* parts = a.parts + (task.picture * tiling.tiles() + task.tile) * tiling.values;
  float* sums = reinterpret_cast<float*>(shared);
  scores.put(sums, thread);
  __syncthreads();
  for (int i = thread; i < D * D; i += kThreads) {
    const int64_t of_query = task.first_query + i / D, of_key = task.first_key + i % D;
    if (of_query >= tiling.depth || of_key >= tiling.depth) continue;
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < GramScores<T, D>::kSlices; ++s) sum += sums[s * D * D + i];
    parts[(task.group * tiling.depth + of_query) * tiling.depth + of_key] = sum;
  }
  if (norm_slice < kNormSlices) sums[thread] = norm;  // nobody else has read what was there
  __syncthreads();
  const int64_t channel = thread < 2 * D ? task.channel(a, tiling, D, thread) : -1;
  if (channel < 0 || (thread < D ? task.first_key : task.first_query) != 0)
    return;  // another block writes it
  float sum = 0.0f;
#pragma unroll
  for (int s = 0; s < kNormSlices; ++s) sum += sums[s * 2 * D + thread];
  parts[a.channels * tiling.depth + channel] = sum;
}

// Adds up the tiles of a picture: a slice of the threads has every kReduceSlices-th tile.
__global__ void __launch_bounds__(kThreads) depthwise_gram_reduce_kernel(DepthwiseGramCuda a, Tiling tiling) {
  __shared__ float sums[kReduceSlices][kReduceElements];
  const int64_t blocks = (tiling.values + kReduceElements - 1) / kReduceElements;
  const int64_t picture = static_cast<int64_t>(blockIdx.x) / blocks;
  const int lane = static_cast<int>(threadIdx.x) % kReduceElements;
  const int slice = static_cast<int>(threadIdx.x) / kReduceElements;
  const int64_t element = static_cast<int64_t>(blockIdx.x) % blocks * kReduceElements + lane;
  float sum = 0.0f;
  if (element < tiling.values) {
    const float* parts = a.parts + picture * tiling.tiles() * tiling.values + element;
#pragma unroll 4
    for (int64_t tile = slice; tile < tiling.tiles(); tile += kReduceSlices)
      sum += parts[tile * tiling.values];
  }
  sums[slice][lane] = sum;
  __syncthreads();
  if (slice > 0 || element >= tiling.values) return;
#pragma unroll
  for (int s = 1; s < kReduceSlices; ++s) sum += sums[s][lane];
  const int64_t scores = a.channels * tiling.depth, norm = element - scores;
  if (norm < 0) {
    a.scores[picture * scores + element] = sum;
  } else if (norm < a.channels) {
    a.q_norm[picture * a.channels + norm] = sum;
  } else {
    a.k_norm[picture * a.channels + norm - a.channels] = sum;
  }
}

template <typename T, int D>
cudaError_t launch_depth(const DepthwiseGramCuda& a, const Tiling& tiling, cudaStream_t stream) {
  const int64_t blocks = a.batch * tiling.tiles() * a.groups * tiling.sides * tiling.sides;
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  if constexpr (sizeof(T) == 2) {
    if (a.channels_last && tiling.depth % 2 == 0 && aligned_to(2 * sizeof(T), a.qk)) {
      return AICR_LAUNCH((depthwise_gram_kernel<T, D, 2>), static_cast<unsigned>(blocks), kThreads, 0, stream,
                         a, tiling);
    }
  }
  return AICR_LAUNCH((depthwise_gram_kernel<T, D, 1>), static_cast<unsigned>(blocks), kThreads, 0, stream, a,
                     tiling);
}

template <typename T>
cudaError_t launch_type(const DepthwiseGramCuda& a, const Tiling& tiling, cudaStream_t stream) {
  if (tiling.depth <= 16) return launch_depth<T, 16>(a, tiling, stream);
  if (tiling.depth <= 32) return launch_depth<T, 32>(a, tiling, stream);
  if (tiling.depth <= 48) return launch_depth<T, 48>(a, tiling, stream);
  return launch_depth<T, kLargestDepth>(a, tiling, stream);
}

}  // namespace

int64_t depthwise_gram_parts(const DepthwiseGramCuda& arguments) {
  const Tiling tiling = make_tiling(arguments);
  return arguments.batch * tiling.tiles() * tiling.values;
}

cudaError_t launch_depthwise_gram(const DepthwiseGramCuda& arguments, cudaStream_t stream) {
  const Tiling tiling = make_tiling(arguments);
  const int64_t blocks = arguments.batch * ((tiling.values + kReduceElements - 1) / kReduceElements);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  const cudaError_t error = dispatch_type(arguments.type, [&](auto tag) {
    return launch_type<typename decltype(tag)::Type>(arguments, tiling, stream);
  });
  if (error != cudaSuccess) return error;
  return AICR_LAUNCH(depthwise_gram_reduce_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream,
                     arguments, tiling);
}

}  // namespace aicr
