// The derivatives of a 3x3 depthwise convolution, by blocks that walk down the rows of a tile. With d the
// gradient of its result,
//
//   grad_x = dwconv_{3x3}(d) with the taps flipped    grad_weight[tap] = sum of d * x at the tap
//
// A thread has two neighbouring columns of its channels. A row of d, at these and the columns beside them,
// goes into the three rows of grad_x around it, and, times the three rows of x around it, into the gradients
// of the weight: so x is needed at the thread's own columns only, and d at one more on each side. All of it
// is in registers until a row of grad_x is complete, or the block ends.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>

#include "cuda/depthwise3x3.cuh"

namespace aicr {

// The threads of a block, channels x pairs of columns, and what it writes: kColumns columns of kChannels
// channels. kMargin: so many pairs more on each side have a thread, for their d.
template <int kMargin>
struct DepthwiseTile {
  static constexpr int kChannels = 16, kColumns = 32;
  static constexpr int kPairs = kColumns / 2 + 2 * kMargin, kThreads = kChannels * kPairs;
};

// How a shape is cut into blocks. Each tile of a picture leaves sums over it, its part, for all channels.
struct DepthwiseTiling {
  static constexpr int kMostRows = 64, kFewestRows = 8;
  static constexpr int64_t kEnoughBlocks = 1024;  // so many blocks busy any device
  int64_t channel_parts, strips, row_blocks, parts, blocks;
  int rows;

  // Whether there are few enough blocks, and rows, columns and steps to neighbours can be counted in int.
  bool fits(int64_t channels, int64_t height, int64_t width) const {
    return blocks <= INT_MAX && std::max({channels, height, width}) <= INT_MAX / 8;
  }
};

inline DepthwiseTiling make_depthwise_tiling(int64_t batch, int64_t channels, int64_t height, int64_t width) {
  using Tile = DepthwiseTile<0>;
  DepthwiseTiling t;
  t.channel_parts = (channels + Tile::kChannels - 1) / Tile::kChannels;
  t.strips = (width + Tile::kColumns - 1) / Tile::kColumns;
  for (t.rows = DepthwiseTiling::kMostRows;; t.rows /= 2) {
    t.row_blocks = (height + t.rows - 1) / t.rows;
    t.parts = batch * t.row_blocks * t.strips;
    t.blocks = t.parts * t.channel_parts;
    if (t.rows == DepthwiseTiling::kFewestRows || t.blocks >= DepthwiseTiling::kEnoughBlocks) return t;
  }
}

// What a thread works on.
template <int kMargin, bool kPlanar>
struct DepthwiseTask {
  using Tile = DepthwiseTile<kMargin>;
  int64_t part, picture;
  int first_channel, channel, column;
  int top, bottom;  // the rows from top to before bottom
  int lane, pair;   // of channels, and of columns
  bool inside[4];   // the picture: the columns before the two, at them and behind
  bool owns;        // whether the block writes these columns

  __device__ __forceinline__ DepthwiseTask(const DepthwiseTiling& t, int channels, int height, int width) {
    // Neighbouring blocks share lines of the cache, then columns, then rows.
    int64_t rest = blockIdx.x;
    first_channel = static_cast<int>(rest % t.channel_parts) * Tile::kChannels;
    part = rest / t.channel_parts;
    const int left = static_cast<int>(part % t.strips) * Tile::kColumns;
    rest = part / t.strips;
    top = static_cast<int>(rest % t.row_blocks) * t.rows;
    bottom = min(top + t.rows, height);
    picture = rest / t.row_blocks;

    const int thread = static_cast<int>(threadIdx.x);
    lane = kPlanar ? thread / Tile::kPairs : thread % Tile::kChannels;
    pair = kPlanar ? thread % Tile::kPairs : thread / Tile::kChannels;
    channel = first_channel + lane;
    column = left + 2 * (pair - kMargin);
#pragma unroll
    for (int k = 0; k < 4; ++k) inside[k] = channel < channels && column + k > 0 && column + k <= width;
    owns = channel < channels && pair >= kMargin && pair < Tile::kPairs - kMargin;
  }

  // Whether the block writes a row.
  __device__ __forceinline__ bool has(int row) const { return row >= top && row < bottom; }

  // The thread that has these columns of a channel. Its neighbours are kStep threads away.
  static constexpr int kStep = kPlanar ? 1 : Tile::kChannels;
  __device__ __forceinline__ static int thread(int lane, int pair) {
    return kPlanar ? lane * Tile::kPairs + pair : pair * Tile::kChannels + lane;
  }
};

// The gradients that a thread forms of V channels at its two columns.
template <int V>
struct DepthwiseGradients {
  DepthwiseSums<V> grad_x[2];       // rows[0] is that of the row before the last d
  float x[3][2][V];                 // the rows before, at and after that of the next d
  float terms[kDepthwiseTerms][V];  // of the weight and, last, the bias

  // The row of x behind that of the next d; zeros where the block does not write it.
  __device__ __forceinline__ void next(const float (&row)[2][V]) {
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        x[0][p][i] = x[1][p][i];
        x[1][p][i] = x[2][p][i];
        x[2][p][i] = row[p][i];
      }
    }
  }

  // A row of d, at the columns before the two, at them and behind. flipped: the weight, its last tap first.
  __device__ __forceinline__ void add(const float (&d)[4][V], const float (&flipped)[kDepthwiseTaps][V]) {
    const float none[V] = {};
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      grad_x[p].next(none);
      grad_x[p].add(d + p, flipped);
#pragma unroll
      for (int tap = 0; tap < kDepthwiseTaps; ++tap) {
#pragma unroll
        for (int i = 0; i < V; ++i) terms[tap][i] += x[tap / 3][p][i] * d[p + 2 - tap % 3][i];
      }
    }
  }

  // The same row, if it is one of the block's, for the bias.
  __device__ __forceinline__ void add_to_bias(const float (&d)[4][V]) {
#pragma unroll
    for (int i = 0; i < V; ++i) terms[kDepthwiseTaps][i] += d[1][i] + d[2][i];
  }
};

// Adds up the terms of a block's threads and puts them into the part of its tile: V times `channels` times
// the taps of a channel, then as many biases. `shared`: room for the terms, which the block has done with.
template <int V, int kMargin, bool kPlanar>
__device__ __forceinline__ void put_terms(const DepthwiseTask<kMargin, kPlanar>& task, int channels,
                                          const float (&terms)[kDepthwiseTerms][V],
                                          float (*shared)[DepthwiseTile<kMargin>::kThreads][V],
                                          float* parts) {
  using Tile = DepthwiseTile<kMargin>;
  __syncthreads();
#pragma unroll
  for (int term = 0; term < kDepthwiseTerms; ++term) {
    store_floats<V>(terms[term], shared[term][threadIdx.x]);
  }
  __syncthreads();
  float* part = parts + task.part * V * channels * kDepthwiseTerms;
  for (int i = static_cast<int>(threadIdx.x); i < V * Tile::kChannels * kDepthwiseTerms;
       i += Tile::kThreads) {
    const int term = i % kDepthwiseTerms, of_map = i / kDepthwiseTerms / Tile::kChannels;
    const int lane = i / kDepthwiseTerms % Tile::kChannels;
    if (task.first_channel + lane >= channels) continue;
    float sum = 0.0f;
#pragma unroll
    for (int pair = kMargin; pair < Tile::kPairs - kMargin; ++pair) {
      sum += shared[term][task.thread(lane, pair)][of_map];
    }
    const int64_t channel = int64_t{of_map} * channels + task.first_channel + lane;
    const int64_t bias = int64_t{V} * channels * kDepthwiseTaps + channel;
    part[term < kDepthwiseTaps ? channel * kDepthwiseTaps + term : bias] = sum;
  }
}

}  // namespace aicr
