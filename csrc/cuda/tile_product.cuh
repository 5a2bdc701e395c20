// The products of pixels and weights that lie in shared memory, added up by a block: by tensor cores for
// 16-bit types, for float32 by ordinary arithmetic. All sums are float32.
//
// A block of 2 P threads has a tile of P pixels, with all their channels, and one after the other tiles of
// weights: kTileOutputs outputs by kTileChannels channels. The pixels lie as in memory, each with its
// channels in a row, or (kPlanes) each channel with its pixels in a row; the weights of an output lie in row
// row_of(output). Rows are a multiple of 16 values long, and kGap values more to the next one.
#pragma once

#include <cstdint>

#include "cuda/matrix.cuh"
#include "cuda/vectors.cuh"
#include "cuda/warp.cuh"

namespace aicr {

template <typename T>
constexpr int kTileOutputs = sizeof(T) == 2 ? 64 : 128;
template <typename T>
constexpr int kTileChannels = 128 / static_cast<int>(sizeof(T));
// 16 bytes, so that the same place of neighbouring rows lies in different banks, and is aligned to 16 bytes.
template <typename T>
constexpr int kGap = static_cast<int>(kVectorBytes / sizeof(T));
template <typename T>
constexpr int kWeightRow = kTileChannels<T> + kGap<T>;

// A warp has 32 pixels and 32 outputs: 2 x 4 products of 16 x 8, of pixels by outputs, or as planes of
// outputs by pixels, so that what a lane has of a row lies side by side in the result.
template <typename T, int P, bool kPlanes>
struct TileProduct {
  static constexpr int kSide = 32, kPixelWarps = P / kSide;
  float sums[2][4][4];

  static __device__ __forceinline__ int first_pixel(int thread) {
    return thread / kWarp % kPixelWarps * kSide;
  }
  // Of those that this thread, and its warp, has.
  static __device__ __forceinline__ int first_output(int thread) {
    return thread / kWarp / kPixelWarps * kSide;
  }

  // A lane has two neighbouring columns of each product. Outputs are spread over the four products in such a
  // way that its eight columns are neighbours.
  static __device__ __forceinline__ int row_of(int output) {
    return kPlanes ? output
                   : output / kSide * kSide + output % 8 / 2 * 8 + output % kSide / 8 * 2 + output % 2;
  }

  // Sums begin at bias(output).
  template <typename Bias>
  __device__ __forceinline__ void start(int thread, const Bias& bias) {
    const int lane = thread % kWarp, output = first_output(thread);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      if constexpr (kPlanes) {  // row n % 2 of products n / 2
        const float value = bias(output + n * 8 + lane / 4);
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[n / 2][i / 2][n % 2 * 2 + i % 2] = value;
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float value = bias(output + lane % 4 * 8 + n * 2 + i);
          sums[0][n][i] = sums[0][n][i + 2] = sums[1][n][i] = sums[1][n][i + 2] = value;
        }
      }
    }
  }

  // Adds those of `channels` channels, a multiple of 16, from the first one of `pixels` and `weights`;
  // `row` is the distance of the rows of pixels.
  __device__ __forceinline__ void add(const T* pixels, int row, const T* weights, int channels, int thread) {
    const int lane = thread % kWarp, pixel = first_pixel(thread), output = first_output(thread);
    const int low = lane % 16, high = lane / 16 * 8;
#pragma unroll 2
    for (int c = 0; c < channels; c += 16) {
      uint32_t left[2][4], right[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        if constexpr (kPlanes) {
          load_matrices<4>(left[m], weights + (output + m * 16 + low) * kWeightRow<T> + c + high);
        } else {
          load_matrices<4>(left[m], pixels + (pixel + m * 16 + low) * row + c + high);
        }
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if constexpr (kPlanes) {
          load_matrices<4, true>(right[n], pixels + (c + low) * row + pixel + n * 16 + high);
        } else {
          const int of = output + n * 16 + high + lane % 8;
          load_matrices<4>(right[n], weights + of * kWeightRow<T> + c + low / 8 * 8);
        }
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const uint32_t columns[2] = {right[n / 2][n % 2 * 2], right[n / 2][n % 2 * 2 + 1]};
          mma_m16n8k16<T>(sums[m][n], left[m], columns);
        }
      }
    }
  }

  // Calls store(pixel, output, values) with eight neighbours each: outputs of a pixel from `output` on, or as
  // planes pixels of an output from `pixel` on. All lanes of the warp go along.
  template <typename Store>
  __device__ __forceinline__ void each(int thread, const Store& store) const {
    const int lane = thread % kWarp, pixel = first_pixel(thread), output = first_output(thread);
    const int column = lane % 4 * 8;
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = part * 8 + lane / 4;
      float values[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i] = sums[part / 2][i / 2][part % 2 * 2 + i % 2];
      if constexpr (kPlanes) {
        gather(values, lane);
        store(pixel + column, output + row, values);
      } else {
        store(pixel + row, output + column, values);
      }
    }
  }

  // Four neighbouring lanes have two columns of each of the four products; each gets all of one product.
  static __device__ __forceinline__ void gather(float (&values)[8], int lane) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
      const bool upper = (lane & bit) != 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if ((i / 2 & bit) != 0) continue;
        const float low = values[i], high = values[i + 2 * bit];
        const float other = __shfl_xor_sync(kAll, upper ? low : high, bit);
        values[i] = upper ? other : low;
        values[i + 2 * bit] = upper ? high : other;
      }
    }
  }
};

// A thread has 8 x 8 results, neighbours by fours along what lies side by side in the result.
template <int P, bool kPlanes>
struct TileProduct<float, P, kPlanes> {
  static constexpr int kEach = 8, kAcross = P / kEach, kDown = kTileOutputs<float> / kEach;
  float sums[kEach][kEach];  // of pixels by outputs

  static __device__ __forceinline__ int first_output(int) { return 0; }
  static __device__ __forceinline__ int row_of(int output) { return output; }

  static __device__ __forceinline__ int pixel_of(int thread, int i) {
    return kPlanes ? i / 4 * (P / 2) + thread % kAcross * 4 + i % 4 : i * kAcross + thread % kAcross;
  }
  static __device__ __forceinline__ int output_of(int thread, int j) {
    return kPlanes ? j * kDown + thread / kAcross : j / 4 * (kDown * 4) + thread / kAcross * 4 + j % 4;
  }

  template <typename Bias>
  __device__ __forceinline__ void start(int thread, const Bias& bias) {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const float value = bias(output_of(thread, j));
#pragma unroll
      for (int i = 0; i < kEach; ++i) sums[i][j] = value;
    }
  }

  __device__ __forceinline__ void add(const float* pixels, int row, const float* weights, int channels,
                                      int thread) {
    for (int c = 0; c < channels; c += 4) {
      if constexpr (kPlanes) {
        float w[kEach][4];
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          load_floats<4>(weights + output_of(thread, j) * kWeightRow<float> + c, w[j]);
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          float x[2][4];
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            load_floats<4>(pixels + (c + k) * row + pixel_of(thread, 4 * h), x[h]);
          }
#pragma unroll
          for (int i = 0; i < kEach; ++i) {
#pragma unroll
            for (int j = 0; j < kEach; ++j) sums[i][j] += x[i / 4][i % 4] * w[j][k];
          }
        }
      } else {
        float x[kEach][4];
#pragma unroll
        for (int i = 0; i < kEach; ++i) load_floats<4>(pixels + pixel_of(thread, i) * row + c, x[i]);
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          float w[4];
          load_floats<4>(weights + output_of(thread, j) * kWeightRow<float> + c, w);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int i = 0; i < kEach; ++i) sums[i][j] += x[i][k] * w[k];
          }
        }
      }
    }
  }

  // Calls store(pixel, output, values) with four neighbours each.
  template <typename Store>
  __device__ __forceinline__ void each(int thread, const Store& store) const {
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float values[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = kPlanes ? sums[4 * h + i][n] : sums[n][4 * h + i];
        if constexpr (kPlanes) {
          store(pixel_of(thread, 4 * h), output_of(thread, n), values);
        } else {
          store(pixel_of(thread, n), output_of(thread, 4 * h), values);
        }
      }
    }
  }
};

}  // namespace aicr
