// A 3x3 depthwise convolution by a thread that walks down the rows of its channels: each row of x goes into
// the three rows of sums around it, in registers.
#pragma once

#include "cuda/vectors.cuh"

namespace aicr {

constexpr int kDepthwiseTaps = 9, kDepthwiseTerms = kDepthwiseTaps + 1;  // with the bias

// The sums of three rows of the result, that of the row before what is read last first.
template <int V>
struct DepthwiseSums {
  float rows[3][V];

  __device__ __forceinline__ void next(const float (&bias)[V]) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      rows[0][i] = rows[1][i];
      rows[1][i] = rows[2][i];
      rows[2][i] = bias[i];
    }
  }

  // A row of x, at the column before, at and after that of the sums.
  __device__ __forceinline__ void add(const float (*x)[V], const float (&weight)[kDepthwiseTaps][V]) {
#pragma unroll
    for (int row = 0; row < 3; ++row) {
#pragma unroll
      for (int dx = 0; dx < 3; ++dx) {
#pragma unroll
        for (int i = 0; i < V; ++i) rows[row][i] += weight[(2 - row) * 3 + dx][i] * x[dx][i];
      }
    }
  }
};

// Of one row of x the columns before, at and after that at `x`, with zeros outside the picture.
template <int V, typename T>
__device__ __forceinline__ void load_columns(const T* x, int64_t column_stride, bool before, bool after,
                                             float (&to)[3][V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) to[0][i] = to[2][i] = 0.0f;
  if (before) load_floats<V>(x - column_stride, to[0]);
  load_floats<V>(x, to[1]);
  if (after) load_floats<V>(x + column_stride, to[2]);
}

}  // namespace aicr
