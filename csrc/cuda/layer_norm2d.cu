// out = z * r * weight + bias with r = 1 / sqrt(var(x) + eps) and z = x - mean(x) or x, over channels; in
// float32.
//
// Layout: channels-last, a pixel is a row of channels, which a power of two of neighbouring lanes of a
// warp, at most 32, read as vectors of 16 bytes; they share its sums by shuffles. As planes (NCHW), 32
// lanes lie along pixels, the 16 warps of a block take every sixteenth channel each and share their sums
// in shared memory.
//
// Tile: channels-last 256 / lanes pixels at a time, up to eight times, with the weights in registers; as
// planes 32 pixels of one picture.
//
// Registers hold the values between the three passes (sum, squares, result): up to 4 x 32 vectors of
// channels, as planes up to 384 channels. What goes beyond is read again, from the cache.
//
// Shared: as planes 4 KiB, otherwise none.
//
// Memory: x read once, out written once. 8 FLOP per element.
//
// Determinism: the sums of a pixel have one order, which depends on the number of channels, the layout
// and, in channels-last, on whether vectors fit. No atomics.
#include "cuda/layer_norm2d.cuh"

#include <climits>

#include "cuda/dispatch.cuh"
#include "cuda/launch.cuh"
#include "cuda/layer_norm2d_tiling.cuh"
#include "cuda/vectors.cuh"

namespace aicr {
namespace {

// kKeep vectors of V channels stay in the registers of a lane. (The second launch bound says that one block
// on a multiprocessor will do: without it the compiler would rather spill a few registers than go without
// more blocks.)
template <typename T, int V, int kKeep>
__global__ void __launch_bounds__(kRowThreads, 1)
    layer_norm2d_rows_kernel(LayerNorm2dCuda a, int lanes, int steps) {
  const int C = static_cast<int>(a.channels), vectors = C / V;
  const int lane = static_cast<int>(threadIdx.x) % lanes, group = static_cast<int>(threadIdx.x) / lanes;
  const int groups = kRowThreads / lanes;
  const int64_t pixels = a.batch * a.pixels;
  const T* x = static_cast<const T*>(a.x);
  T* out = static_cast<T*>(a.out);

  float weight[kKeep][V], bias[kKeep][V];
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    const int vector = lane + lanes * i;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const int64_t c = static_cast<int64_t>(vector) * V + j;
      weight[i][j] = vector < vectors ? weight_at<T>(a.weight, a.weight_is_float32, c) : 0.0f;
      bias[i][j] = vector < vectors && a.bias != nullptr ? weight_at<T>(a.bias, a.bias_is_float32, c) : 0.0f;
    }
  }

  for (int step = 0; step < steps; ++step) {
    const int64_t pixel = (static_cast<int64_t>(blockIdx.x) * steps + step) * groups + group;
    const bool inside = pixel < pixels;  // every lane goes along to the shuffles
    const T* row = x + (inside ? pixel : 0) * C;
    float kept[kKeep][V] = {}, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kKeep; ++i) {
      const int vector = lane + lanes * i;
      if (vector < vectors) {
        load_floats<V>(row + vector * V, kept[i]);
#pragma unroll
        for (int j = 0; j < V; ++j) sum += kept[i][j];
      }
    }
    for (int vector = lane + lanes * kKeep; vector < vectors; vector += lanes) {
      float again[V];
      load_floats<V>(row + vector * V, again);
#pragma unroll
      for (int j = 0; j < V; ++j) sum += again[j];
    }
    const float mean = sum_over(sum, lanes) / static_cast<float>(C);
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kKeep; ++i) {
      if (lane + lanes * i < vectors) {
#pragma unroll
        for (int j = 0; j < V; ++j) squares += (kept[i][j] - mean) * (kept[i][j] - mean);
      }
    }
    for (int vector = lane + lanes * kKeep; vector < vectors; vector += lanes) {
      float again[V];
      load_floats<V>(row + vector * V, again);
#pragma unroll
      for (int j = 0; j < V; ++j) squares += (again[j] - mean) * (again[j] - mean);
    }
    const float r = 1.0f / sqrtf(sum_over(squares, lanes) / static_cast<float>(C) + a.eps);
    const float shift = a.subtract_mean ? mean : 0.0f;
    if (!inside) continue;
    T* to = out + pixel * C;
#pragma unroll
    for (int i = 0; i < kKeep; ++i) {
      const int vector = lane + lanes * i;
      if (vector < vectors) {
#pragma unroll
        for (int j = 0; j < V; ++j) kept[i][j] = (kept[i][j] - shift) * r * weight[i][j] + bias[i][j];
        store_floats<V>(kept[i], to + vector * V);
      }
    }
    for (int vector = lane + lanes * kKeep; vector < vectors; vector += lanes) {
      float again[V];
      load_floats<V>(row + vector * V, again);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const int64_t c = static_cast<int64_t>(vector) * V + j;
        const float offset = a.bias != nullptr ? weight_at<T>(a.bias, a.bias_is_float32, c) : 0.0f;
        again[j] = (again[j] - shift) * r * weight_at<T>(a.weight, a.weight_is_float32, c) + offset;
      }
      store_floats<V>(again, to + vector * V);
    }
  }
}

// kKeep channels of a pixel stay in the registers of a thread.
template <typename T, int kKeep>
__global__ void __launch_bounds__(kPlaneThreads, 1)
    layer_norm2d_planes_kernel(LayerNorm2dCuda a, int64_t pixel_parts) {
  __shared__ float sums[kPlaneWarps][kWarp], squares[kPlaneWarps][kWarp];
  const int C = static_cast<int>(a.channels);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t picture = static_cast<int64_t>(blockIdx.x) / pixel_parts;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) % pixel_parts * kWarp + lane;
  const bool inside = pixel < a.pixels;  // every thread goes along to the barriers
  const int64_t origin = picture * C * a.pixels + (inside ? pixel : 0);
  const T* x = static_cast<const T*>(a.x) + origin;
  T* out = static_cast<T*>(a.out) + origin;

  float kept[kKeep], sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    const int c = warp + kPlaneWarps * i;
    kept[i] = c < C ? to_float(x[c * a.pixels]) : 0.0f;
    sum += kept[i];
  }
  for (int c = warp + kPlaneWarps * kKeep; c < C; c += kPlaneWarps) sum += to_float(x[c * a.pixels]);
  sums[warp][lane] = sum;
  __syncthreads();
  float mean = 0.0f;
#pragma unroll
  for (int w = 0; w < kPlaneWarps; ++w) mean += sums[w][lane];
  mean /= static_cast<float>(C);

  float deviations = 0.0f;
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    if (warp + kPlaneWarps * i < C) deviations += (kept[i] - mean) * (kept[i] - mean);
  }
  for (int c = warp + kPlaneWarps * kKeep; c < C; c += kPlaneWarps) {
    const float deviation = to_float(x[c * a.pixels]) - mean;
    deviations += deviation * deviation;
  }
  squares[warp][lane] = deviations;
  __syncthreads();
  float variance = 0.0f;
#pragma unroll
  for (int w = 0; w < kPlaneWarps; ++w) variance += squares[w][lane];
  const float r = 1.0f / sqrtf(variance / static_cast<float>(C) + a.eps);
  const float shift = a.subtract_mean ? mean : 0.0f;
  if (!inside) return;

  const auto result = [&](float value, int c) {
    const float bias = a.bias != nullptr ? weight_at<T>(a.bias, a.bias_is_float32, c) : 0.0f;
    return from_float<T>((value - shift) * r * weight_at<T>(a.weight, a.weight_is_float32, c) + bias);
  };
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    const int c = warp + kPlaneWarps * i;
    if (c < C) out[c * a.pixels] = result(kept[i], c);
  }
  for (int c = warp + kPlaneWarps * kKeep; c < C; c += kPlaneWarps) {
    out[c * a.pixels] = result(to_float(x[c * a.pixels]), c);
  }
}

template <typename T, int V>
cudaError_t launch_rows(const LayerNorm2dCuda& a, cudaStream_t stream) {
  const int64_t vectors = a.channels / V;
  const auto [lanes, steps, count] = make_row_tiling(vectors, a.batch * a.pixels);
  if (count > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(count);
  if (vectors <= lanes) {
    return AICR_LAUNCH((layer_norm2d_rows_kernel<T, V, 1>), blocks, kRowThreads, 0, stream, a, lanes, steps);
  }
  if constexpr (V > 1) {
    if (vectors <= 2 * lanes) {
      return AICR_LAUNCH((layer_norm2d_rows_kernel<T, V, 2>), blocks, kRowThreads, 0, stream, a, lanes,
                         steps);
    }
  }
  return AICR_LAUNCH((layer_norm2d_rows_kernel<T, V, 4>), blocks, kRowThreads, 0, stream, a, lanes, steps);
}

template <typename T>
cudaError_t launch_planes(const LayerNorm2dCuda& a, cudaStream_t stream) {
  const auto [parts, count] = make_plane_tiling(a.batch, a.pixels);
  if (count > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(count);
  if (a.channels <= 4 * kPlaneWarps) {
    return AICR_LAUNCH((layer_norm2d_planes_kernel<T, 4>), blocks, kPlaneThreads, 0, stream, a, parts);
  }
  if (a.channels <= 12 * kPlaneWarps) {
    return AICR_LAUNCH((layer_norm2d_planes_kernel<T, 12>), blocks, kPlaneThreads, 0, stream, a, parts);
  }
  return AICR_LAUNCH((layer_norm2d_planes_kernel<T, 24>), blocks, kPlaneThreads, 0, stream, a, parts);
}

template <typename T>
cudaError_t launch(const LayerNorm2dCuda& a, cudaStream_t stream) {
  constexpr int V = kVectorBytes / sizeof(T);
  if (a.batch * a.channels * a.pixels == 0) return cudaSuccess;
  if (a.channels > INT_MAX / 2) return cudaErrorInvalidConfiguration;
  if (!a.channels_last) return launch_planes<T>(a, stream);
  const bool vectors = a.channels % V == 0 && aligned_to(kVectorBytes, a.x, a.out);
  return vectors ? launch_rows<T, V>(a, stream) : launch_rows<T, 1>(a, stream);
}

}  // namespace

cudaError_t launch_layer_norm2d(const LayerNorm2dCuda& arguments, cudaStream_t stream) {
  return dispatch_type(arguments.type,
                       [&](auto tag) { return launch<typename decltype(tag)::Type>(arguments, stream); });
}

}  // namespace aicr
