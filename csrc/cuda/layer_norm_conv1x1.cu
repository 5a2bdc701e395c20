// out = weight * z + bias for every pixel, with z = the norm of x (layer_norm2d.cu) rounded to the type of x;
// a second product with other weights, if there are some. Statistics and sums in float32, each element
// rounded once: what layer_norm2d and a 1x1 convolution give, but for the order of sums.
//
// Layout: channels-last, or as planes (NCHW); pixels lie in shared memory as they do in x.
//
// Tile: a block has 128 or 64 pixels (float32 64 or 32) with all their channels. It copies them to shared
// memory, normalises them there, and then walks over tiles of 64 outputs (float32 128), whose weights come in
// pieces of 128 bytes of channels, each copied while the one before is multiplied (tile_product.cuh). Where
// there are few pixels several blocks share a tile of them and divide its outputs.
//
// Shared: pixels, two pieces of weights, the weights of the norm, as planes 1 to 4 KiB of sums: with 64
// channels and 128 pixels of a 16-bit type 36.5 KiB, with 384 channels and 64 pixels 70 KiB, never more than
// 94 KiB.
//
// Memory: x read once, out written once; x again from the second cache by blocks that share its tile, and
// the weights once per block. 2 FLOP per channel and output of a pixel, 8 per element of x.
//
// Determinism: every output is a sum over channels in one order, and so are the statistics of a pixel; the
// orders depend on the number of channels, the type and the layout only. No atomics.
#include "cuda/layer_norm_conv1x1.cuh"

#include <algorithm>
#include <climits>

#include "cuda/async_copy.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/launch.cuh"
#include "cuda/tile_product.cuh"

namespace aicr {
namespace {

constexpr int kNormLanes = 8;           // of a warp share a pixel
constexpr int kNormParts = 4;           // of the channels of a pixel, as planes
constexpr int kChannelStep = 16;        // tiles have a multiple of so many channels
constexpr int64_t kEnoughBlocks = 256;  // so many blocks busy any device
constexpr int64_t kManyTiles = 512;     // from so many on they may be large
constexpr int kWideTile = 256;          // channels of the largest tiles of 16-bit types
constexpr int kWideFloatTile = 192;     // and of float32
// Beside one another on a multiprocessor, at least: registers for 768 threads, of float32 384.
template <typename T, int P>
constexpr int kBlocks = (sizeof(T) == 2 ? 768 : 384) / (2 * P);

// How maps are cut. `channels` are those of x, rounded up; tiles of outputs are those of the first
// projection and then those of the second.
struct Tiling {
  int64_t pixel_tiles;  // of a picture; channels-last, where pictures follow one another, of all
  int channels, first_tiles, output_tiles;
  int parts, part_tiles;  // blocks that share a tile of pixels, and the tiles of outputs of each
  bool x_in_vectors, weights_in_vectors, out_in_vectors;
};

// What a block works on.
template <int P, bool kPlanes>
struct Task {
  int64_t picture, pixel;  // the first pixel
  int pixels, first_tile, last_tile;

  __device__ Task(const LayerNormConv1x1Cuda& a, const Tiling& t) {
    int64_t rest = blockIdx.x;
    first_tile = static_cast<int>(rest % t.parts) * t.part_tiles;
    last_tile = min(first_tile + t.part_tiles, t.output_tiles);
    rest /= t.parts;
    pixel = rest % t.pixel_tiles * P;
    picture = rest / t.pixel_tiles;
    const int64_t left = (kPlanes ? a.pixels : a.batch * a.pixels) - pixel;
    pixels = left < P ? static_cast<int>(left) : P;
  }
};

// The projection that a tile of outputs belongs to, and its first output there.
struct OutputTile {
  NormalisedProjection projection;
  int output, outputs;

  __device__ OutputTile(const LayerNormConv1x1Cuda& a, const Tiling& t, int tile, int tile_outputs)
      : projection(tile < t.first_tiles ? a.first : a.second),
        output((tile < t.first_tiles ? tile : tile - t.first_tiles) * tile_outputs),
        outputs(static_cast<int>(projection.outputs)) {}
};

// Begins to copy the pixels of a block, with zeros for those and for channels that the map has not.
template <typename T, int P, bool kPlanes>
__device__ __forceinline__ void copy_pixels(const LayerNormConv1x1Cuda& a, const Tiling& t,
                                            const Task<P, kPlanes>& task, T* tile) {
  constexpr int V = kVectorBytes / sizeof(T);
  const int C = static_cast<int>(a.channels);
  const int64_t stride = kPlanes ? a.pixels : C;
  const T* x =
      static_cast<const T*>(a.x) + (kPlanes ? task.picture * C * a.pixels + task.pixel : task.pixel * C);
  const int rows = kPlanes ? t.channels : P, length = kPlanes ? P : t.channels;
  const int rows_there = kPlanes ? C : task.pixels, length_there = kPlanes ? task.pixels : C;
  const int step = t.x_in_vectors ? V : 1, steps = length / step;
  for (int i = static_cast<int>(threadIdx.x); i < rows * steps; i += 2 * P) {
    const int row = i / steps, at = i % steps * step;
    const bool there = row < rows_there && at < length_there;
    const T* from = x + (there ? row * stride + at : 0);
    T* to = tile + at + row * (length + kGap<T>);
    if (t.x_in_vectors) {
      copy_async<kVectorBytes>(to, from, there);
    } else {
      *to = there ? *from : from_float<T>(0.0f);
    }
  }
}

// Begins to copy the weights of a tile of outputs and of the channels from `channel` on, likewise.
template <typename T, int P, bool kPlanes>
__device__ __forceinline__ void copy_weights(const LayerNormConv1x1Cuda& a, const Tiling& t,
                                             const OutputTile& of, int channel, T* to) {
  constexpr int V = kVectorBytes / sizeof(T), kVectors = kTileChannels<T> / V;
  const int C = static_cast<int>(a.channels);
  const T* weight = static_cast<const T*>(of.projection.weight);
  for (int i = static_cast<int>(threadIdx.x); i < kTileOutputs<T> * kVectors; i += 2 * P) {
    const int row = i / kVectors, c = channel + i % kVectors * V;
    if (c >= t.channels) continue;
    const bool there = of.output + row < of.outputs && c < C;
    const T* from = weight + (there ? static_cast<int64_t>(of.output + row) * C + c : 0);
    T* at = to + TileProduct<T, P, kPlanes>::row_of(row) * kWeightRow<T> + i % kVectors * V;
    if (t.weights_in_vectors) {
      copy_async<kVectorBytes>(at, from, there);
    } else {
      for (int j = 0; j < V; ++j) at[j] = there && c + j < C ? from[j] : from_float<T>(0.0f);
    }
  }
}

__device__ __forceinline__ float reciprocal_deviation(float squares, int C, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(C) + eps);
}

// Normalises the pixels in shared memory. `terms` are the weights of the norm and then its biases.
template <typename T, int P>
__device__ __forceinline__ void normalise_rows(const LayerNormConv1x1Cuda& a, const Tiling& t,
                                               const float* terms, T* tile) {
  constexpr int V = kVectorBytes / sizeof(T), kSteps = kNormLanes * V;
  const int C = static_cast<int>(a.channels), thread = static_cast<int>(threadIdx.x);
  for (int pixel = thread / kNormLanes; pixel < P; pixel += 2 * P / kNormLanes) {
    T* row = tile + pixel * (t.channels + kGap<T>);
    float sum = 0.0f, squares = 0.0f, values[V];
    for (int c = thread % kNormLanes * V; c < C; c += kSteps) {
      load_floats<V>(row + c, values);
#pragma unroll
      for (int j = 0; j < V; ++j) sum += values[j];  // zeros behind the last channel
    }
    const float mean = sum_over(sum, kNormLanes) / static_cast<float>(C);
    for (int c = thread % kNormLanes * V; c < C; c += kSteps) {
      load_floats<V>(row + c, values);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        if (c + j < C) squares += (values[j] - mean) * (values[j] - mean);
      }
    }
    const float r = reciprocal_deviation(sum_over(squares, kNormLanes), C, a.eps);
    const float shift = a.subtract_mean ? mean : 0.0f;
    for (int c = thread % kNormLanes * V; c < C; c += kSteps) {
      float weight[V], bias[V];
      load_floats<V>(row + c, values);
      load_floats<V>(terms + c, weight);
      load_floats<V>(terms + t.channels + c, bias);
#pragma unroll
      for (int j = 0; j < V; ++j)
        values[j] = c + j < C ? (values[j] - shift) * r * weight[j] + bias[j] : 0.0f;
      store_floats<V>(values, row + c);
    }
  }
}

// Likewise; a thread has every fourth channel of two neighbouring pixels.
template <typename T, int P>
__device__ __forceinline__ void normalise_planes(const LayerNormConv1x1Cuda& a, const Tiling& t,
                                                 const float* terms, T* tile) {
  alignas(8) __shared__ float sums[kNormParts][P];
  alignas(8) __shared__ float squares[kNormParts][P];
  const int C = static_cast<int>(a.channels), thread = static_cast<int>(threadIdx.x);
  const int pixel = thread % (P / 2) * 2, part = thread / (P / 2);
  T* column = tile + pixel;
  float values[2], mean[2] = {}, deviations[2] = {}, r[2] = {};
  for (int c = part; c < C; c += kNormParts) {
    load_floats<2>(column + c * (P + kGap<T>), values);
    mean[0] += values[0];
    mean[1] += values[1];
  }
  store_floats<2>(mean, &sums[part][pixel]);
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    mean[j] = 0.0f;
#pragma unroll
    for (int i = 0; i < kNormParts; ++i) mean[j] += sums[i][pixel + j];
    mean[j] /= static_cast<float>(C);
  }
  for (int c = part; c < C; c += kNormParts) {
    load_floats<2>(column + c * (P + kGap<T>), values);
#pragma unroll
    for (int j = 0; j < 2; ++j) deviations[j] += (values[j] - mean[j]) * (values[j] - mean[j]);
  }
  store_floats<2>(deviations, &squares[part][pixel]);
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < kNormParts; ++i) r[j] += squares[i][pixel + j];
    r[j] = reciprocal_deviation(r[j], C, a.eps);
  }
  for (int c = part; c < C; c += kNormParts) {
    T* at = column + c * (P + kGap<T>);
    load_floats<2>(at, values);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      values[j] = (values[j] - (a.subtract_mean ? mean[j] : 0.0f)) * r[j] * terms[c] + terms[t.channels + c];
    }
    store_floats<2>(values, at);
  }
}

// Writes the results of a tile of outputs that the maps have.
template <typename T, int P, bool kPlanes>
__device__ __forceinline__ void store_outputs(const LayerNormConv1x1Cuda& a, const Tiling& t,
                                              const Task<P, kPlanes>& task, const OutputTile& of,
                                              const TileProduct<T, P, kPlanes>& product) {
  constexpr int V = kVectorBytes / sizeof(T);
  const int outputs_left = of.outputs - of.output;
  T* out = static_cast<T*>(of.projection.out) +
           (kPlanes ? (task.picture * of.outputs + of.output) * a.pixels + task.pixel
                    : task.pixel * of.outputs + of.output);
  product.each(static_cast<int>(threadIdx.x), [&](int pixel, int output, const float (&values)[V]) {
    if (pixel >= task.pixels || output >= outputs_left) return;
    T* to = out + (kPlanes ? output * a.pixels + pixel : pixel * of.outputs + output);
    if (t.out_in_vectors) {
      store_floats<V>(values, to);
      return;
    }
    const int left = kPlanes ? task.pixels - pixel : outputs_left - output;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      if (j < left) to[j] = from_float<T>(values[j]);
    }
  });
}

// The pixels of a block in shared memory, in bytes.
template <typename T, int P, bool kPlanes>
__host__ __device__ size_t tile_bytes(int channels) {
  const int rows = kPlanes ? channels : P, length = kPlanes ? P : channels;
  return sizeof(T) * rows * (length + kGap<T>);
}

// Of a piece of weights.
template <typename T>
constexpr int kWeightValues = kTileOutputs<T> * kWeightRow<T>;

// With two of these and the weights and biases of the norm.
template <typename T, int P, bool kPlanes>
size_t shared_bytes(int channels) {
  return tile_bytes<T, P, kPlanes>(channels) + 2 * kWeightValues<T> * sizeof(T) +
         2 * channels * sizeof(float);
}

template <typename T, int P, bool kPlanes>
__global__ void __launch_bounds__(2 * P, kBlocks<T, P>)
    layer_norm_conv1x1_kernel(LayerNormConv1x1Cuda a, Tiling t) {
  using Product = TileProduct<T, P, kPlanes>;
  AICR_DYNAMIC_SHARED(unsigned char, shared);
  T* tile = reinterpret_cast<T*>(shared);
  unsigned char* behind = shared + tile_bytes<T, P, kPlanes>(t.channels);
  T* weights = reinterpret_cast<T*>(behind);
  float* terms = reinterpret_cast<float*>(behind + 2 * kWeightValues<T> * sizeof(T));

  const Task<P, kPlanes> task(a, t);
  const int thread = static_cast<int>(threadIdx.x);
  copy_pixels<T, P, kPlanes>(a, t, task, tile);
  commit_copies();
  copy_weights<T, P, kPlanes>(a, t, OutputTile(a, t, task.first_tile, kTileOutputs<T>), 0, weights);
  commit_copies();
  for (int c = thread; c < t.channels; c += 2 * P) {
    const bool there = c < a.channels;
    terms[c] = there ? weight_at<T>(a.norm_weight, a.norm_weight_is_float32, c) : 0.0f;
    terms[t.channels + c] =
        there && a.norm_bias != nullptr ? weight_at<T>(a.norm_bias, a.norm_bias_is_float32, c) : 0.0f;
  }
  wait_for_copies<1>();
  __syncthreads();
  if constexpr (kPlanes) {
    normalise_planes<T, P>(a, t, terms, tile);
  } else {
    normalise_rows<T, P>(a, t, terms, tile);
  }

  const int row = (kPlanes ? P : t.channels) + kGap<T>;
  int piece = 0;  // of the two that are in shared memory, the one to multiply by next
  for (int number = task.first_tile; number < task.last_tile; ++number) {
    const OutputTile of(a, t, number, kTileOutputs<T>);
    const bool busy = of.output + Product::first_output(thread) < of.outputs;  // the whole warp is or is not
    Product product;
    if (busy) {
      product.start(thread, [&](int output) {
        const NormalisedProjection& p = of.projection;
        if (p.bias == nullptr || of.output + output >= of.outputs) return 0.0f;
        return weight_at<T>(p.bias, p.bias_is_float32, of.output + output);
      });
    }
    int channel = 0;
    do {
      wait_for_copies<0>();
      __syncthreads();  // also behind the norm, and behind the last product with the other piece
      const int next = channel + kTileChannels<T>;
      const bool last = next >= t.channels;
      if (!last || number + 1 < task.last_tile) {
        copy_weights<T, P, kPlanes>(a, t, OutputTile(a, t, number + (last ? 1 : 0), kTileOutputs<T>),
                                    last ? 0 : next, weights + (1 - piece) * kWeightValues<T>);
        commit_copies();
      }
      if (busy) {
        product.add(tile + (kPlanes ? channel * row : channel), row, weights + piece * kWeightValues<T>,
                    min(kTileChannels<T>, t.channels - channel), thread);
      }
      piece = 1 - piece;
      channel = next;
    } while (channel < t.channels);
    if (busy) store_outputs<T, P, kPlanes>(a, t, task, of, product);
  }
}

template <typename T, int P, bool kPlanes>
cudaError_t launch_tiles(const LayerNormConv1x1Cuda& a, cudaStream_t stream) {
  constexpr int V = kVectorBytes / sizeof(T);
  const int64_t pixels = kPlanes ? a.pixels : a.batch * a.pixels, pictures = kPlanes ? a.batch : 1;
  const int64_t first_tiles = (a.first.outputs + kTileOutputs<T> - 1) / kTileOutputs<T>;
  const int64_t output_tiles = first_tiles + (a.second.outputs + kTileOutputs<T> - 1) / kTileOutputs<T>;
  if (output_tiles > INT_MAX / P / kTileOutputs<T>) return cudaErrorInvalidConfiguration;
  Tiling t{};
  t.pixel_tiles = (pixels + P - 1) / P;
  t.channels = static_cast<int>((a.channels + kChannelStep - 1) / kChannelStep * kChannelStep);
  t.first_tiles = static_cast<int>(first_tiles);
  t.output_tiles = static_cast<int>(output_tiles);
  const int64_t tiles = pictures * t.pixel_tiles;
  const int64_t wanted = std::min((kEnoughBlocks + tiles - 1) / tiles, output_tiles);
  t.part_tiles = static_cast<int>((output_tiles + wanted - 1) / wanted);
  t.parts = static_cast<int>((output_tiles + t.part_tiles - 1) / t.part_tiles);
  t.x_in_vectors = (kPlanes ? a.pixels : a.channels) % V == 0 && aligned_to(kVectorBytes, a.x);
  t.weights_in_vectors = a.channels % V == 0 && aligned_to(kVectorBytes, a.first.weight, a.second.weight);
  t.out_in_vectors = (kPlanes ? a.pixels % V == 0 : a.first.outputs % V == 0 && a.second.outputs % V == 0) &&
                     aligned_to(kVectorBytes, a.first.out, a.second.out);
  if (tiles > INT_MAX / t.parts) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH((layer_norm_conv1x1_kernel<T, P, kPlanes>), static_cast<unsigned>(tiles * t.parts),
                     2 * P, (shared_bytes<T, P, kPlanes>(t.channels)), stream, a, t);
}

template <typename T, int P>
cudaError_t launch_layout(const LayerNormConv1x1Cuda& a, cudaStream_t stream) {
  return a.channels_last ? launch_tiles<T, P, false>(a, stream) : launch_tiles<T, P, true>(a, stream);
}

template <typename T>
cudaError_t launch(const LayerNormConv1x1Cuda& a, cudaStream_t stream) {
  const int64_t pixels = a.batch * a.pixels;
  if constexpr (sizeof(T) == 2) {
    const bool large = a.channels <= kWideTile && pixels >= 128 * kManyTiles;
    return large ? launch_layout<T, 128>(a, stream) : launch_layout<T, 64>(a, stream);
  } else {
    const bool large = a.channels <= kWideFloatTile && pixels >= 64 * kManyTiles;
    return large ? launch_layout<T, 64>(a, stream) : launch_layout<T, 32>(a, stream);
  }
}

}  // namespace

cudaError_t launch_layer_norm_conv1x1(const LayerNormConv1x1Cuda& arguments, cudaStream_t stream) {
  if (arguments.channels > kMostNormalisedChannels) return cudaErrorInvalidConfiguration;
  if (arguments.batch * arguments.pixels * (arguments.first.outputs + arguments.second.outputs) == 0) {
    return cudaSuccess;
  }
  return dispatch_type(arguments.type,
                       [&](auto tag) { return launch<typename decltype(tag)::Type>(arguments, stream); });
}

}  // namespace aicr
