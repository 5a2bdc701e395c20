// The gradients of decoupled_attention. With
//
//   a = GELU(attn),  r = dwconv_{1xK}(a),  b = GELU(r),  c = dwconv_{Kx1}(b),  out = c * value
//
// and u = grad * value, R = K / 2:
//
//   grad_value = grad * c                                grad_weight_col[k] = sum of u[h] * b[h + k - R]
//   s = GELU'(r) * sum over k of weight_col[k] * u[h + R - k]
//   grad_attn = GELU'(attn) * sum over k of weight_row[k] * s[w + R - k]
//                                                        grad_weight_row[k] = sum of a[w] * s[w + R - k]
//
// all in float32; the last sum is that of s[w] * a[w + k - R], by the columns of a.
//
// Layout: NCHW ("planar": a warp lies along a row of one plane) or channels-last (half a warp along
// channels).
//
// Tile: a block owns a strip of columns of some channels and walks down a block of rows. It has a thread for
// each column of each channel, and for R columns on either side, where s is formed again. Every thread keeps
// the last K values of b and u of its column in registers, so the column convolutions touch no memory; a and
// s of a row pass from thread to thread in shared memory. At row h a thread reads attn, grad and value, which
// it has asked for one row before, forms a, u, r and b of row h, then c and s of row h - R, for which rows up
// to h are needed, and grad_attn of row h - R - 1, whose s all threads have written before the one barrier of
// a row. What a row leaves for that time, one value per thread, waits in shared memory.
//
// Shared: R + 2 lines of a, of GELU'(attn), of GELU'(r) and of grad, and two of s: 24 KiB for K = 7, 19 KiB
// for K = 5.
//
// Memory: attn, grad and value read once, grad_attn and grad_value written once; besides 2R rows per block of
// rows and, on either side of a strip, R columns of all three and R more of attn are read again, most of them
// from the L2 cache. Forming these again costs arithmetic: a strip of 16 columns has 12 of its own for K = 5,
// one of 32 columns 28. The sums for the weights take 2K floats per channel and block, written and read once.
// 12K + 4 FLOP, two erf and two exp per element.
//
// Determinism: each gradient of a map is computed by one thread in one order. Each pixel's share of the
// weights' sums is added by the thread that owns it, down its column; then columns, then blocks, in an order
// that follows from the shape. No atomics.
#include "cuda/decoupled_attention.cuh"

#include <climits>

#include "cuda/dispatch.cuh"
#include "cuda/gelu.cuh"
#include "cuda/launch.cuh"
#include "cuda/sum_parts.cuh"
#include "cuda/vectors.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kFewestRows = 16, kUsualRows = 64;  // of a block
constexpr int64_t kEnoughBlocks = 1024;               // so many busy any device
constexpr int64_t kMostParts = 1024;                  // of the sums over pixels, if blocks may be long enough

// The block's threads as columns x channels. Neighbouring columns are kStep apart in shared memory.
struct ChannelsLast {
  static constexpr int kChannels = 16, kColumns = kThreads / kChannels, kStep = kChannels;
  static constexpr bool kPlanar = false;
};
struct Planar {
  static constexpr int kChannels = 8, kColumns = kThreads / kChannels, kStep = 1;
  static constexpr bool kPlanar = true;
};

// How a shape is cut into blocks. A part is what the blocks of one place and all channels have.
struct Tiling {
  int64_t strips, channel_parts, row_blocks, parts, blocks;
  int64_t rows;  // of a block
};

Tiling make_tiling(const DecoupledAttentionBackwardCuda& a) {
  const int channels = a.channels_last ? ChannelsLast::kChannels : Planar::kChannels;
  const int owned = kThreads / channels - 2 * (a.taps / 2);  // columns
  Tiling t{};
  t.strips = (a.width + owned - 1) / owned;
  t.channel_parts = (a.channels + channels - 1) / channels;
  t.rows = kFewestRows;
  while (true) {
    t.row_blocks = (a.height + t.rows - 1) / t.rows;
    t.parts = a.batch * t.row_blocks * t.strips;
    t.blocks = t.parts * t.channel_parts;
    const bool too_many = t.parts > kMostParts || (t.rows < kUsualRows && t.blocks > kEnoughBlocks);
    if (!too_many || t.rows >= a.height) return t;
    t.rows *= 2;
  }
}

// What a thread reads of a row: at its column, and of attn also at one beside the block's.
template <typename T>
struct Row {
  T attn, beside, grad, value;
};

// What waits for rows below it.
enum Delayed { kAttnSlope, kRowSlope, kGrad, kDelayed };

template <typename T, int K, typename Layout>
__global__ void __launch_bounds__(kThreads)
    decoupled_attention_backward_kernel(DecoupledAttentionBackwardCuda a, Tiling tiling) {
  constexpr int R = K / 2, kDepth = R + 2;
  constexpr int kChannels = Layout::kChannels, kColumns = Layout::kColumns, kStep = Layout::kStep;
  constexpr int kLine = kColumns + 2 * R, kSums = 2 * K * kChannels;
  static_assert(kColumns > 2 * R && kSums <= kThreads && 2 * K <= kDelayed * kDepth);
  __shared__ float activated[kDepth][kLine * kChannels];
  __shared__ float delayed[kDelayed][kDepth][kThreads];
  __shared__ float passed[2][kThreads];  // s

  // Neighbouring blocks share channels, then columns, then rows.
  const int64_t part = blockIdx.x / tiling.channel_parts;
  const int first_channel = static_cast<int>(blockIdx.x % tiling.channel_parts) * kChannels;
  const int strip = static_cast<int>(part % tiling.strips);
  const int64_t row_block = part / tiling.strips % tiling.row_blocks;
  const int64_t picture = part / tiling.strips / tiling.row_blocks;

  const int C = static_cast<int>(a.channels), H = static_cast<int>(a.height), W = static_cast<int>(a.width);
  const int64_t channel_stride = Layout::kPlanar ? a.height * a.width : 1;
  const int64_t column_stride = Layout::kPlanar ? 1 : a.channels;
  const int64_t row_stride = column_stride * a.width;
  const int top = static_cast<int>(row_block * tiling.rows);
  const int bottom = static_cast<int>(min(top + tiling.rows, a.height));

  // Thread i works on element i of a [columns][channels] (channels-last) or [channels][columns] (planar)
  // array; the first and the last R columns belong to other blocks.
  const int thread = static_cast<int>(threadIdx.x);
  const int my_channel = Layout::kPlanar ? thread / kColumns : thread % kChannels;
  const int my_column = Layout::kPlanar ? thread % kColumns : thread / kChannels;
  const int channel = first_channel + my_channel, column = strip * (kColumns - 2 * R) + my_column - R;
  const bool active = channel < C && column >= 0 && column < W;
  const bool owned = active && my_column >= R && my_column < kColumns - R;
  // The threads of those columns also bring in a of the columns R further out.
  const int outwards = my_column < R ? -R : my_column >= kColumns - R ? R : 0;
  const bool beside = outwards != 0 && channel < C && column + outwards >= 0 && column + outwards < W;
  const int place =
      (Layout::kPlanar ? my_channel * kLine + my_column : thread) + R * kStep;  // in a line of a
  const int64_t origin = picture * a.channels * a.height * a.width;
  const int64_t my_offset = origin + channel * channel_stride + column * column_stride;

  float weight_row[K], weight_col[K], sums_row[K], sums_col[K];
  float rows[K], products[K];  // b and u of the last K rows
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t at = int64_t{channel} * K + k;
    weight_row[k] = channel < C ? weight_at<T>(a.weight_row, a.weight_row_is_float32, at) : 0.0f;
    weight_col[k] = channel < C ? weight_at<T>(a.weight_col, a.weight_col_is_float32, at) : 0.0f;
    sums_row[k] = sums_col[k] = rows[k] = products[k] = 0.0f;
  }

  const auto load = [&](int h) {
    const T zero = from_float<T>(0.0f);
    Row<T> row{zero, zero, zero, zero};
    if (h < 0 || h >= min(bottom + R, H)) return row;  // the same for the whole block
    const int64_t at = h * row_stride + my_offset;
    if (active) {
      row.attn = static_cast<const T*>(a.attn)[at];
      row.grad = static_cast<const T*>(a.grad)[at];
      row.value = static_cast<const T*>(a.value)[at];
    }
    if (beside) row.beside = static_cast<const T*>(a.attn)[at + outwards * column_stride];
    return row;
  };

  Row<T> ahead = load(top - R);
  int slot = 0;  // of row h in what waits: row h - R - 1 is in the next one, row h - R in the one after
  for (int h = top - R;; ++h) {
    const Row<T> row = ahead;
    ahead = load(h + 1);
    const int next = slot + 1 < kDepth ? slot + 1 : 0, after = next + 1 < kDepth ? next + 1 : 0;
    const bool inside = h >= 0 && h < min(bottom + R, H);  // the same for the whole block
    float of_row = 0.0f, product = 0.0f;
    if (inside) {
      const float grad = to_float(row.grad);
      const auto [value, slope] = gelu_with_slope(to_float(row.attn));
      activated[slot][place] = value;
      if (outwards != 0) activated[slot][place + outwards * kStep] = gelu(to_float(row.beside));
      delayed[kAttnSlope][slot][thread] = slope;
      delayed[kGrad][slot][thread] = grad;
      product = grad * to_float(row.value);
    }
    // One barrier is enough: a line of s is written again two rows on, and one of a later still, after a
    // barrier that all readers have reached.
    __syncthreads();
    const int done = h - R - 1;
    if (done >= top && owned) {
      const float* s = passed[done & 1] + thread;
      const float own = activated[next][place];
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < K; ++k) {
        const float other = s[(R - k) * kStep];
        sum += weight_row[k] * other;
        sums_row[k] += own * other;
      }
      static_cast<T*>(a.grad_attn)[done * row_stride + my_offset] =
          from_float<T>(sum * delayed[kAttnSlope][next][thread]);
    }
    if (h == bottom + R) break;

    if (inside) {
      const float* taps = activated[slot] + place - R * kStep;
      float r = 0.0f;
#pragma unroll
      for (int k = 0; k < K; ++k) r += weight_row[k] * taps[k * kStep];
      const auto [value, slope] = gelu_with_slope(r);
      of_row = value;
      delayed[kRowSlope][slot][thread] = slope;
    }
#pragma unroll
    for (int k = 0; k + 1 < K; ++k) {
      rows[k] = rows[k + 1];
      products[k] = products[k + 1];
    }
    rows[K - 1] = of_row;
    products[K - 1] = product;

    const int centre = h - R;
    if (centre >= top) {
      float through = 0.0f;
#pragma unroll
      for (int k = 0; k < K; ++k) through += weight_col[k] * products[K - 1 - k];
      passed[centre & 1][thread] = through * delayed[kRowSlope][after][thread];  // 0 outside, as u is
      if (owned) {
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < K; ++k) {
          sum += weight_col[k] * rows[k];
          sums_col[k] += products[R] * rows[k];
        }
        static_cast<T*>(a.grad_value)[centre * row_stride + my_offset] =
            from_float<T>(sum * delayed[kGrad][after][thread]);
      }
    }
    slot = next;
  }

  // The sums of the block's columns, [2][K][threads], where each thread overwrites what waited for itself.
  float* sums = &delayed[0][0][0];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    sums[k * kThreads + thread] = sums_row[k];
    sums[(K + k) * kThreads + thread] = sums_col[k];
  }
  __syncthreads();
  if (thread >= kSums) return;
  const int which = thread / K, weight = which / kChannels, of_channel = which % kChannels, tap = thread % K;
  const float* first = sums + (weight * K + tap) * kThreads + of_channel * (Layout::kPlanar ? kColumns : 1);
  float sum = 0.0f;
  // Neighbouring threads begin at different columns, lest they all wait for one bank of the memory.
#pragma unroll
  for (int i = 0; i < kColumns; ++i) sum += first[(thread + i) % kColumns * kStep];
  if (first_channel + of_channel < C) {
    a.parts[((part * 2 + weight) * C + first_channel + of_channel) * K + tap] = sum;
  }
}

template <typename T, int K, typename Layout>
cudaError_t launch(const DecoupledAttentionBackwardCuda& a, cudaStream_t stream) {
  const Tiling tiling = make_tiling(a);
  if (tiling.blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  if (tiling.blocks > 0) {
    const cudaError_t error =
        AICR_LAUNCH((decoupled_attention_backward_kernel<T, K, Layout>), static_cast<unsigned>(tiling.blocks),
                    kThreads, 0, stream, a, tiling);
    if (error != cudaSuccess) return error;
  }
  const int64_t values = a.channels * K;
  return launch_sum_parts({a.parts, tiling.parts, a.grad_weight_row, a.grad_weight_col, values, values},
                          stream);
}

template <typename T, int K>
cudaError_t launch_layout(const DecoupledAttentionBackwardCuda& a, cudaStream_t stream) {
  return a.channels_last ? launch<T, K, ChannelsLast>(a, stream) : launch<T, K, Planar>(a, stream);
}

template <typename T>
cudaError_t launch_taps(const DecoupledAttentionBackwardCuda& a, cudaStream_t stream) {
  switch (a.taps) {
    case 3:
      return launch_layout<T, 3>(a, stream);
    case 5:
      return launch_layout<T, 5>(a, stream);
    case 7:
      return launch_layout<T, 7>(a, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

int64_t decoupled_attention_backward_parts(const DecoupledAttentionBackwardCuda& arguments) {
  return make_tiling(arguments).parts * 2 * arguments.taps * arguments.channels;
}

cudaError_t launch_decoupled_attention_backward(const DecoupledAttentionBackwardCuda& arguments,
                                                cudaStream_t stream) {
  return dispatch_type(
      arguments.type, [&](auto tag) { return launch_taps<typename decltype(tag)::Type>(arguments, stream); });
}

}  // namespace aicr
