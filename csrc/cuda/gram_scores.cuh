// Scores of queries and keys that lie in shared memory, added up by a block: by tensor cores for 16-bit
// types, for float32 by ordinary arithmetic. All sums are float32.
//
// The block has the values of kGramPixels pixels, each D queries and then D keys, D a multiple of 16, of
// kGramPixelValues in all. Where scores leave threads over, slices of the threads share the pixels; the
// caller adds up the slices.
#pragma once

#include <algorithm>

#include "cuda/matrix.cuh"
#include "cuda/vectors.cuh"

namespace aicr {

constexpr int kGramThreads = 256, kGramPixels = 64;

// Values from one pixel to the next: 16 bytes more than it has, so that the same place of neighbours lies in
// different banks, and is aligned to 16 bytes.
template <typename T, int D>
constexpr int kGramPixelValues = 2 * D + static_cast<int>(16 / sizeof(T));

template <typename T, int D>
struct GramScores {
  static constexpr int kRowTiles = D / 16, kSteps = kGramPixels / 16;
  static constexpr int kSlices = std::min(kGramThreads / 32 / kRowTiles, kSteps);
  float sums[D / 8][4] = {};  // of 16 queries, by 8 keys each

  // Adds those of the pixels in shared memory.
  __device__ __forceinline__ void add(const T* pixels, int thread) {
    const int lane = thread % 32, part = thread / 32 / kRowTiles, row = thread / 32 % kRowTiles * 16;
    if (part >= kSlices) return;  // whole warps
    const int low = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    for (int step = part; step < kSteps; step += kSlices) {
      const T* at = pixels + step * 16 * kGramPixelValues<T, D>;
      uint32_t queries[4];
      load_matrices<4, true>(queries, at + (low + third) * kGramPixelValues<T, D> + row + second);
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        uint32_t keys[4];
        load_matrices<4, true>(keys, at + (low + second) * kGramPixelValues<T, D> + D + n * 16 + third);
        const uint32_t left[2] = {keys[0], keys[1]}, right[2] = {keys[2], keys[3]};
        mma_m16n8k16<T>(sums[2 * n], queries, left);
        mma_m16n8k16<T>(sums[2 * n + 1], queries, right);
      }
    }
  }

  // Writes them to `slices`, [kSlices][D][D].
  __device__ __forceinline__ void put(float* slices, int thread) const {
    const int lane = thread % 32, part = thread / 32 / kRowTiles, row = thread / 32 % kRowTiles * 16;
    if (part >= kSlices) return;
    float* to = slices + (part * D + row + lane / 4) * D + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i / 2 * 8 * D + n * 8 + i % 2] = sums[n][i];
    }
  }
};

template <int D>
struct GramScores<float, D> {
  static constexpr int kEach = 4, kSide = D / kEach;  // a thread has 4 x 4 scores
  static constexpr int kSlices = kGramThreads / (kSide * kSide);
  float sums[kEach][kEach] = {};

  __device__ __forceinline__ void add(const float* pixels, int thread) {
    const int part = thread / (kSide * kSide), place = thread % (kSide * kSide);
    if (part >= kSlices) return;
    const float* at = pixels + place / kSide * kEach;
    const int keys = D + place % kSide * kEach - place / kSide * kEach;
    for (int pixel = part; pixel < kGramPixels; pixel += kSlices) {
      float q[kEach], k[kEach];
      load_floats<kEach>(at + pixel * kGramPixelValues<float, D>, q);
      load_floats<kEach>(at + pixel * kGramPixelValues<float, D> + keys, k);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int j = 0; j < kEach; ++j) sums[i][j] += q[i] * k[j];
      }
    }
  }

  __device__ __forceinline__ void put(float* slices, int thread) const {
    const int part = thread / (kSide * kSide), place = thread % (kSide * kSide);
    if (part >= kSlices) return;
    float* to = slices + (part * D + place / kSide * kEach) * D + place % kSide * kEach;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) to[i * D + j] = sums[i][j];
    }
  }
};

}  // namespace aicr
