// Operators of a coding step, bit for bit as on the CPU: integers, and doubles of which every operation is
// rounded correctly.
//
// A thread has four neighbouring channels of a pixel, or one where the channels of half a step are no
// multiple of four or something does not lie where vectors do. Each reads and writes the memory once: for
// each number of a step latent_scale_index 2 bytes and 1, latent_quantise 8 (2 more with quantiser steps, 4
// with noise) and 3; for each number of the latent latent_accept 2 (4 in the second step) and 4,
// latent_dequantise 4 (6) and 4. No shared memory.
#include "cuda/latent_ops.cuh"

#include <climits>
#include <type_traits>

#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 4;  // channels of a thread

// The work of a thread: V channels of a pixel, the first of them, and the first that the step takes there.
struct Place {
  int64_t pixel, channel, begin;
};

// Of `channels` in each pixel; false behind the last one.
template <int V>
__device__ __forceinline__ bool own_place(const LatentStep& task, uint32_t pixels, uint32_t channels,
                                          Place& place) {
  const uint32_t at = blockIdx.x * kThreads + threadIdx.x, groups = channels / V;
  const uint32_t pixel = at / groups, width = static_cast<uint32_t>(task.width);
  if (pixel >= pixels) return false;
  const uint32_t row = pixel / width;
  place.pixel = pixel;
  place.channel = at % groups * V;
  place.begin = first_channel(task, row % static_cast<uint32_t>(task.height), pixel - row * width);
  return true;
}

template <int V, typename T>
__device__ __forceinline__ Vector<T, V> load(const T* from) {
  return *reinterpret_cast<const Vector<T, V>*>(from);
}

template <int V, typename T>
__device__ __forceinline__ void store(const Vector<T, V>& values, T* to) {
  *reinterpret_cast<Vector<T, V>*>(to) = values;
}

// Of a pixel: log scales and means of all channels.
__device__ __forceinline__ const int16_t* scales_of(const LatentStep& task, int64_t pixel) {
  return task.parameters + (pixel + 1) * task.parameter_channels - 2 * task.channels;
}

template <int V>
__device__ __forceinline__ Vector<uint8_t, V> levels_at(const int16_t* log_scale) {
  const auto scales = load<V>(log_scale);
  Vector<uint8_t, V> levels;
#pragma unroll
  for (int i = 0; i < V; ++i) levels.values[i] = static_cast<uint8_t>(scale_level(scales.values[i]));
  return levels;
}

template <int V>
__global__ void __launch_bounds__(kThreads)
    latent_scale_index_kernel(LatentStep task, uint32_t pixels, uint8_t* index) {
  Place own;
  const int64_t half = task.channels / 2;
  if (!own_place<V>(task, pixels, static_cast<uint32_t>(half), own)) return;
  store(levels_at<V>(scales_of(task, own.pixel) + own.begin + own.channel),
        index + own.pixel * half + own.channel);
}

template <int V>
__global__ void __launch_bounds__(kThreads)
    latent_quantise_kernel(LatentStep task, uint32_t pixels, const float* y, int16_t* symbols,
                           uint8_t* index) {
  Place own;
  const int64_t half = task.channels / 2;
  if (!own_place<V>(task, pixels, static_cast<uint32_t>(half), own)) return;
  const int64_t channel = own.begin + own.channel, to = own.pixel * half + own.channel;
  const int16_t* scales = scales_of(task, own.pixel) + channel;
  const auto levels = levels_at<V>(scales);
  const auto means = load<V>(scales + task.channels);
  const auto exponents = load<V>(task.exponent + channel);
  const auto numbers = load<V>(y + own.pixel * task.channels + channel);
  Vector<int16_t, V> steps;
  if (task.step != nullptr) steps = load<V>(task.step + own.pixel * task.step_channels + channel);
  Vector<float, V> noise;
  if (task.noise != nullptr) noise = load<V>(task.noise + own.pixel * task.channels + channel);
  Vector<int16_t, V> nearest;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    double scaled = numbers.values[i];
    if (task.step != nullptr) scaled /= quantiser_step(steps.values[i]);
    double residual = scaled - means.values[i] * unit_of(exponents.values[i]);
    if (task.noise != nullptr)
      residual = without_noise(residual, noise.values[i], task.variances[levels.values[i]]);
    nearest.values[i] = static_cast<int16_t>(coded_symbol(residual, levels.values[i], task.zones));
  }
  store(nearest, symbols + to);
  store(levels, index + to);
}

template <int V>
__global__ void __launch_bounds__(kThreads)
    latent_accept_kernel(LatentStep task, uint32_t pixels, const int16_t* symbols, const int32_t* values,
                         int32_t* out) {
  Place own;
  const int64_t half = task.channels / 2;
  if (!own_place<V>(task, pixels, static_cast<uint32_t>(task.channels), own)) return;
  const int64_t at = own.pixel * task.channels + own.channel, of_step = own.channel - own.begin;
  Vector<int32_t, V> result = {};
  if (of_step >= 0 && of_step < half) {
    const auto coded = load<V>(symbols + own.pixel * half + of_step);
    const auto means = load<V>(scales_of(task, own.pixel) + task.channels + own.channel);
    const auto exponents = load<V>(task.exponent + own.channel);
#pragma unroll
    for (int i = 0; i < V; ++i)
      result.values[i] = value_of(coded.values[i], means.values[i], exponents.values[i]);
  } else if (values != nullptr) {
    result = load<V>(values + at);
  }
  store(result, out + at);
}

template <int V>
__global__ void __launch_bounds__(kThreads)
    latent_dequantise_kernel(LatentStep task, uint32_t pixels, const int32_t* values, float* out) {
  Place own;
  if (!own_place<V>(task, pixels, static_cast<uint32_t>(task.channels), own)) return;
  const int64_t at = own.pixel * task.channels + own.channel;
  const auto whole = load<V>(values + at);
  const auto exponents = load<V>(task.exponent + own.channel);
  Vector<int16_t, V> steps;
  if (task.step != nullptr) steps = load<V>(task.step + own.pixel * task.step_channels + own.channel);
  Vector<float, V> result;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    double real = whole.values[i] * unit_of(exponents.values[i]);
    if (task.step != nullptr) real *= quantiser_step(steps.values[i]);
    result.values[i] = static_cast<float>(real);
  }
  store(result, out + at);
}

// Whether all that a step reads can be read in vectors: groups of channels never straddle its halves.
template <typename... Pointers>
bool has_vectors(const LatentStep& task, Pointers... pointers) {
  return task.channels / 2 % kEach == 0 && task.parameter_channels % kEach == 0 &&
         task.step_channels % kEach == 0 &&
         aligned_to(kVectorBytes, task.parameters, task.exponent, task.step, task.noise, pointers...);
}

// Calls launch(V, blocks) with the width of the vectors, a constant, and the blocks for `channels` of each
// pixel.
template <typename Launch>
cudaError_t for_channels(bool vectors, int64_t pixels, int64_t channels, Launch launch) {
  if (pixels == 0 || channels == 0) return cudaSuccess;
  if (channels > INT_MAX - kThreads || pixels > (INT_MAX - kThreads) / channels)
    return cudaErrorInvalidConfiguration;
  const auto blocks = [&](int64_t each) {
    return static_cast<unsigned>((pixels * channels / each + kThreads - 1) / kThreads);
  };
  return vectors ? launch(std::integral_constant<int, kEach>{}, blocks(kEach))
                 : launch(std::integral_constant<int, 1>{}, blocks(1));
}

}  // namespace

cudaError_t launch_latent_scale_index(const LatentStep& task, int64_t pixels, uint8_t* index,
                                      cudaStream_t stream) {
  return for_channels(has_vectors(task, index), pixels, task.channels / 2, [&](auto width, unsigned blocks) {
    return AICR_LAUNCH((latent_scale_index_kernel<decltype(width)::value>), blocks, kThreads, 0, stream, task,
                       static_cast<uint32_t>(pixels), index);
  });
}

cudaError_t launch_latent_quantise(const LatentStep& task, int64_t pixels, const float* y, int16_t* symbols,
                                   uint8_t* index, cudaStream_t stream) {
  const bool vectors = has_vectors(task, y, symbols, index);
  return for_channels(vectors, pixels, task.channels / 2, [&](auto width, unsigned blocks) {
    return AICR_LAUNCH((latent_quantise_kernel<decltype(width)::value>), blocks, kThreads, 0, stream, task,
                       static_cast<uint32_t>(pixels), y, symbols, index);
  });
}

cudaError_t launch_latent_accept(const LatentStep& task, int64_t pixels, const int16_t* symbols,
                                 const int32_t* values, int32_t* out, cudaStream_t stream) {
  const bool vectors = has_vectors(task, symbols, values, out);
  return for_channels(vectors, pixels, task.channels, [&](auto width, unsigned blocks) {
    return AICR_LAUNCH((latent_accept_kernel<decltype(width)::value>), blocks, kThreads, 0, stream, task,
                       static_cast<uint32_t>(pixels), symbols, values, out);
  });
}

cudaError_t launch_latent_dequantise(const LatentStep& task, int64_t pixels, const int32_t* values,
                                     float* out, cudaStream_t stream) {
  const bool vectors = has_vectors(task, values, out);
  return for_channels(vectors, pixels, task.channels, [&](auto width, unsigned blocks) {
    return AICR_LAUNCH((latent_dequantise_kernel<decltype(width)::value>), blocks, kThreads, 0, stream, task,
                       static_cast<uint32_t>(pixels), values, out);
  });
}

}  // namespace aicr
