// The gradients of layer_norm2d. With g = grad * weight and d = x - mean, and z = d or x as forward:
// grad_x = r * (g - mean(g) - d * r^2 * mean(g * z)), where mean(g) is left out if the mean is not
// subtracted; grad_weight and grad_bias are the sums of grad * z * r and of grad over pixels. All in float32.
//
// Two kernels. The first forms grad_x as layer_norm2d.cu forms the result, and leaves mean and r of every
// pixel behind. The second reads x and grad again, 32 channels of a part of the pixels to a block, and adds
// up what goes to weight and bias; sum_parts.cu adds up the parts, in double.
//
// Shared: as planes 8 KiB in the first kernel; 2 KiB in the second.
//
// Memory: x and grad read twice, grad_x written once, and two floats per pixel written and read once. About
// 25 FLOP per element.
//
// Determinism: all sums have one order, which depends on the shape, the layout and, in channels-last, on
// whether vectors fit. No atomics.
#include <climits>

#include "cuda/dispatch.cuh"
#include "cuda/launch.cuh"
#include "cuda/layer_norm2d.cuh"
#include "cuda/layer_norm2d_tiling.cuh"
#include "cuda/sum_parts.cuh"
#include "cuda/vectors.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;  // of the second kernel
constexpr int64_t kFewestPixels = 256, kMostParts = 1024;

// What the gradient of an element of x depends on, beside it: statistics of its pixel.
struct Pixel {
  float mean, r, g_mean, slope;

  __device__ __forceinline__ Pixel(const LayerNorm2dBackwardCuda& a, float mean, float squares, float g_sum,
                                   float gz_sum)
      : mean(mean) {
    const float count = static_cast<float>(a.channels);
    r = 1.0f / sqrtf(squares / count + a.eps);
    g_mean = a.subtract_mean ? g_sum / count : 0.0f;
    slope = gz_sum / count * r * r;
  }

  __device__ __forceinline__ float gradient(float x, float g) const {
    return r * (g - g_mean - (x - mean) * slope);
  }
};

// kKeep vectors of V channels stay in the registers of a lane.
template <typename T, int V, int kKeep>
__global__ void __launch_bounds__(kRowThreads, 1)
    layer_norm2d_backward_rows_kernel(LayerNorm2dBackwardCuda a, int lanes, int steps) {
  const int C = static_cast<int>(a.channels), vectors = C / V;
  const int lane = static_cast<int>(threadIdx.x) % lanes, group = static_cast<int>(threadIdx.x) / lanes;
  const int groups = kRowThreads / lanes;
  const int64_t pixels = a.batch * a.pixels;

  float weight[kKeep][V] = {};
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    const int vector = lane + lanes * i;
    if (vector >= vectors) continue;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      weight[i][j] = weight_at<T>(a.weight, a.weight_is_float32, static_cast<int64_t>(vector) * V + j);
    }
  }

  for (int step = 0; step < steps; ++step) {
    const int64_t pixel = (static_cast<int64_t>(blockIdx.x) * steps + step) * groups + group;
    const bool inside = pixel < pixels;  // every lane goes along to the shuffles
    const T* x = static_cast<const T*>(a.x) + (inside ? pixel : 0) * C;
    const T* grad = static_cast<const T*>(a.grad) + (inside ? pixel : 0) * C;
    float kept[kKeep][V] = {}, g[kKeep][V] = {}, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kKeep; ++i) {
      const int vector = lane + lanes * i;
      if (vector >= vectors) continue;
      load_floats<V>(x + vector * V, kept[i]);
      load_floats<V>(grad + vector * V, g[i]);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sum += kept[i][j];
        g[i][j] *= weight[i][j];
      }
    }
    // What does not fit into registers is loaded again in each pass.
    const auto load_again = [&](int vector, float (&to)[V], float (&to_g)[V]) {
      load_floats<V>(x + vector * V, to);
      load_floats<V>(grad + vector * V, to_g);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        to_g[j] *= weight_at<T>(a.weight, a.weight_is_float32, static_cast<int64_t>(vector) * V + j);
      }
    };
    for (int vector = lane + lanes * kKeep; vector < vectors; vector += lanes) {
      float again[V];
      load_floats<V>(x + vector * V, again);
#pragma unroll
      for (int j = 0; j < V; ++j) sum += again[j];
    }
    const float mean = sum_over(sum, lanes) / static_cast<float>(C), shift = a.subtract_mean ? mean : 0.0f;

    float squares = 0.0f, g_sum = 0.0f, gz_sum = 0.0f;
    const auto add = [&](float value, float of_g) {
      squares += (value - mean) * (value - mean);
      g_sum += of_g;
      gz_sum += of_g * (value - shift);
    };
#pragma unroll
    for (int i = 0; i < kKeep; ++i) {
      if (lane + lanes * i >= vectors) continue;
#pragma unroll
      for (int j = 0; j < V; ++j) add(kept[i][j], g[i][j]);
    }
    for (int vector = lane + lanes * kKeep; vector < vectors; vector += lanes) {
      float again[V], again_g[V];
      load_again(vector, again, again_g);
#pragma unroll
      for (int j = 0; j < V; ++j) add(again[j], again_g[j]);
    }
    squares = sum_over(squares, lanes);
    g_sum = sum_over(g_sum, lanes);
    gz_sum = sum_over(gz_sum, lanes);
    const Pixel of_pixel(a, mean, squares, g_sum, gz_sum);
    if (!inside) continue;
    T* grad_x = static_cast<T*>(a.grad_x) + pixel * C;
#pragma unroll
    for (int i = 0; i < kKeep; ++i) {
      const int vector = lane + lanes * i;
      if (vector >= vectors) continue;
#pragma unroll
      for (int j = 0; j < V; ++j) kept[i][j] = of_pixel.gradient(kept[i][j], g[i][j]);
      store_floats<V>(kept[i], grad_x + vector * V);
    }
    for (int vector = lane + lanes * kKeep; vector < vectors; vector += lanes) {
      float again[V], again_g[V];
      load_again(vector, again, again_g);
#pragma unroll
      for (int j = 0; j < V; ++j) again[j] = of_pixel.gradient(again[j], again_g[j]);
      store_floats<V>(again, grad_x + vector * V);
    }
    if (lane == 0) {
      a.statistics[2 * pixel] = mean;
      a.statistics[2 * pixel + 1] = of_pixel.r;
    }
  }
}

// kKeep channels of a pixel stay in the registers of a thread.
template <typename T, int kKeep>
__global__ void __launch_bounds__(kPlaneThreads, 1)
    layer_norm2d_backward_planes_kernel(LayerNorm2dBackwardCuda a, int64_t pixel_parts) {
  __shared__ float sums[4][kPlaneWarps][kWarp];
  const int C = static_cast<int>(a.channels);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t picture = static_cast<int64_t>(blockIdx.x) / pixel_parts;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) % pixel_parts * kWarp + lane;
  const bool inside = pixel < a.pixels;  // every thread goes along to the barriers
  const int64_t origin = picture * C * a.pixels + (inside ? pixel : 0);
  const T* x = static_cast<const T*>(a.x) + origin;
  const T* grad = static_cast<const T*>(a.grad) + origin;
  const auto value_at = [&](int c) { return to_float(x[c * a.pixels]); };
  const auto g_at = [&](int c) {
    return to_float(grad[c * a.pixels]) * weight_at<T>(a.weight, a.weight_is_float32, c);
  };
  const auto total = [&](int of) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kPlaneWarps; ++w) sum += sums[of][w][lane];
    return sum;
  };

  float kept[kKeep], g[kKeep], sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    const int c = warp + kPlaneWarps * i;
    kept[i] = c < C ? value_at(c) : 0.0f;
    g[i] = c < C ? g_at(c) : 0.0f;
    sum += kept[i];
  }
  for (int c = warp + kPlaneWarps * kKeep; c < C; c += kPlaneWarps) sum += value_at(c);
  sums[0][warp][lane] = sum;
  __syncthreads();
  const float mean = total(0) / static_cast<float>(C), shift = a.subtract_mean ? mean : 0.0f;

  float squares = 0.0f, g_sum = 0.0f, gz_sum = 0.0f;
  const auto add = [&](float value, float of_g) {
    squares += (value - mean) * (value - mean);
    g_sum += of_g;
    gz_sum += of_g * (value - shift);
  };
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    if (warp + kPlaneWarps * i < C) add(kept[i], g[i]);
  }
  for (int c = warp + kPlaneWarps * kKeep; c < C; c += kPlaneWarps) add(value_at(c), g_at(c));
  sums[1][warp][lane] = squares;
  sums[2][warp][lane] = g_sum;
  sums[3][warp][lane] = gz_sum;
  __syncthreads();
  const Pixel of_pixel(a, mean, total(1), total(2), total(3));
  if (!inside) return;
  T* grad_x = static_cast<T*>(a.grad_x) + origin;
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    const int c = warp + kPlaneWarps * i;
    if (c < C) grad_x[c * a.pixels] = from_float<T>(of_pixel.gradient(kept[i], g[i]));
  }
  for (int c = warp + kPlaneWarps * kKeep; c < C; c += kPlaneWarps) {
    grad_x[c * a.pixels] = from_float<T>(of_pixel.gradient(value_at(c), g_at(c)));
  }
  if (warp == 0) {
    float* statistics = a.statistics + 2 * (picture * a.pixels + pixel);
    statistics[0] = mean;
    statistics[1] = of_pixel.r;
  }
}

// How the pixels of a batch are cut into parts, by their number alone.
struct Parts {
  int64_t count, pixels;  // of each
};

Parts make_parts(const LayerNorm2dBackwardCuda& a) {
  const int64_t pixels = a.batch * a.pixels;
  Parts parts{0, kFewestPixels};
  while ((pixels + parts.pixels - 1) / parts.pixels > kMostParts) parts.pixels *= 2;
  parts.count = (pixels + parts.pixels - 1) / parts.pixels;
  return parts;
}

// Sums over the pixels of a part, for 32 channels: a lane has a channel and a warp every eighth pixel
// (channels-last), or a lane every 32nd pixel and a warp every eighth channel (planes).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    layer_norm2d_weight_kernel(LayerNorm2dBackwardCuda a, Parts parts) {
  __shared__ float sums[2][kWarps][kWarp];
  const int64_t channel_parts = (a.channels + kWarp - 1) / kWarp;
  const int64_t part = static_cast<int64_t>(blockIdx.x) / channel_parts;
  const int64_t first_channel = static_cast<int64_t>(blockIdx.x) % channel_parts * kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first = part * parts.pixels, all = a.batch * a.pixels;
  const int64_t last = first + parts.pixels < all ? first + parts.pixels : all;
  const T* x = static_cast<const T*>(a.x);
  const T* grad = static_cast<const T*>(a.grad);
  float* to_weight = a.parts + part * 2 * a.channels;
  float* to_bias = to_weight + a.channels;

  float weight = 0.0f, bias = 0.0f;
  const auto add = [&](int64_t pixel, int64_t at) {
    const float up = to_float(grad[at]), shift = a.subtract_mean ? a.statistics[2 * pixel] : 0.0f;
    weight += up * (to_float(x[at]) - shift) * a.statistics[2 * pixel + 1];
    bias += up;
  };
  if (a.channels_last) {
    const int64_t channel = first_channel + lane;
    if (channel < a.channels) {
      for (int64_t pixel = first + warp; pixel < last; pixel += kWarps)
        add(pixel, pixel * a.channels + channel);
    }
    sums[0][warp][lane] = weight;
    sums[1][warp][lane] = bias;
    __syncthreads();
    if (warp > 0 || channel >= a.channels) return;
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      weight += sums[0][w][lane];
      bias += sums[1][w][lane];
    }
    to_weight[channel] = weight;
    to_bias[channel] = bias;
    return;
  }
  for (int i = warp; i < kWarp && first_channel + i < a.channels; i += kWarps) {
    const int64_t channel = first_channel + i;
    weight = bias = 0.0f;
    for (int64_t pixel = first + lane; pixel < last; pixel += kWarp) {
      const int64_t picture = pixel / a.pixels;
      add(pixel, (picture * (a.channels - 1) + channel) * a.pixels + pixel);
    }
    weight = sum_over(weight, kWarp);
    bias = sum_over(bias, kWarp);
    if (lane == 0) {
      to_weight[channel] = weight;
      to_bias[channel] = bias;
    }
  }
}

template <typename T, int V>
cudaError_t launch_rows(const LayerNorm2dBackwardCuda& a, cudaStream_t stream) {
  const int64_t vectors = a.channels / V;
  const auto [lanes, steps, count] = make_row_tiling(vectors, a.batch * a.pixels);
  if (count > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(count);
  if (vectors <= lanes) {
    return AICR_LAUNCH((layer_norm2d_backward_rows_kernel<T, V, 1>), blocks, kRowThreads, 0, stream, a, lanes,
                       steps);
  }
  return AICR_LAUNCH((layer_norm2d_backward_rows_kernel<T, V, 3>), blocks, kRowThreads, 0, stream, a, lanes,
                     steps);
}

template <typename T>
cudaError_t launch_planes(const LayerNorm2dBackwardCuda& a, cudaStream_t stream) {
  const auto [parts, count] = make_plane_tiling(a.batch, a.pixels);
  if (count > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(count);
  if (a.channels <= 4 * kPlaneWarps) {
    return AICR_LAUNCH((layer_norm2d_backward_planes_kernel<T, 4>), blocks, kPlaneThreads, 0, stream, a,
                       parts);
  }
  return AICR_LAUNCH((layer_norm2d_backward_planes_kernel<T, 12>), blocks, kPlaneThreads, 0, stream, a,
                     parts);
}

template <typename T>
cudaError_t launch(const LayerNorm2dBackwardCuda& a, cudaStream_t stream) {
  constexpr int V = kVectorBytes / sizeof(T);
  if (a.channels == 0) return cudaSuccess;
  if (a.channels > INT_MAX / 2) return cudaErrorInvalidConfiguration;
  const Parts parts = make_parts(a);
  if (parts.count > 0) {
    const bool vectors = a.channels % V == 0 && aligned_to(kVectorBytes, a.x, a.grad, a.grad_x);
    cudaError_t error = !a.channels_last ? launch_planes<T>(a, stream)
                        : vectors        ? launch_rows<T, V>(a, stream)
                                         : launch_rows<T, 1>(a, stream);
    if (error != cudaSuccess) return error;
    const int64_t blocks = parts.count * ((a.channels + kWarp - 1) / kWarp);
    if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
    error = AICR_LAUNCH((layer_norm2d_weight_kernel<T>), static_cast<unsigned>(blocks), kThreads, 0, stream,
                        a, parts);
    if (error != cudaSuccess) return error;
  }
  return launch_sum_parts({a.parts, parts.count, a.grad_weight, a.grad_bias, a.channels, a.channels}, stream);
}

}  // namespace

int64_t layer_norm2d_backward_parts(const LayerNorm2dBackwardCuda& arguments) {
  return make_parts(arguments).count * 2 * arguments.channels;
}

cudaError_t launch_layer_norm2d_backward(const LayerNorm2dBackwardCuda& arguments, cudaStream_t stream) {
  return dispatch_type(arguments.type,
                       [&](auto tag) { return launch<typename decltype(tag)::Type>(arguments, stream); });
}

}  // namespace aicr
