// out = dwconv_{Kx1}(GELU(dwconv_{1xK}(GELU(attn)))) * value, zero padding, in one pass; sums in float32.
//
// Layout: NCHW ("planar": a warp lies along a row of one plane) or channels-last (a warp lies along
// channels).
//
// Tile: a block owns a strip of columns of some channels and walks down a block of rows. Each thread owns
// one column of one channel: it keeps the last K results of the row convolution in registers, so the column
// convolution touches no memory. Per row the block puts GELU(attn) of its strip and the K - 1 columns beside
// it into shared memory, where the row convolution reads its taps.
//
// Shared: two lines (double buffering, one barrier per row): 3.5 KiB channels-last, 2.2 KiB planar, at most.
//
// Memory: attn and value read once, out written once, plus (K - 1) / kBlockRows rows and (K - 1) / columns
// of attn again, most of them from the L2 cache. 4K + 1 FLOP and two erf per element.
//
// Determinism: every output is computed by one thread in one order; the tiling depends on the shape only.
// No atomics.
#include "cuda/decoupled_attention.cuh"

#include <climits>

#include "cuda/dispatch.cuh"
#include "cuda/gelu.cuh"
#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256;
constexpr int kBlockRows = 32;

// The block's threads as columns x channels, and where in memory neighbours lie.
struct ChannelsLast {
  static constexpr int kChannels = 32, kColumns = kThreads / kChannels;
  static constexpr bool kPlanar = false;
};
struct Planar {
  static constexpr int kChannels = 4, kColumns = kThreads / kChannels;
  static constexpr bool kPlanar = true;
};

// How a shape is cut into blocks; the last axis of the grid is the only one.
struct Tiling {
  int64_t strips, channel_parts, row_blocks, blocks;
};

template <typename Layout>
Tiling make_tiling(const DecoupledAttentionCuda& a) {
  Tiling t;
  t.strips = (a.width + Layout::kColumns - 1) / Layout::kColumns;
  t.channel_parts = (a.channels + Layout::kChannels - 1) / Layout::kChannels;
  t.row_blocks = (a.height + kBlockRows - 1) / kBlockRows;
  t.blocks = a.batch * t.row_blocks * t.strips * t.channel_parts;
  return t;
}

template <typename T, int K, typename Layout>
__global__ void __launch_bounds__(kThreads)
    decoupled_attention_kernel(DecoupledAttentionCuda a, Tiling tiling) {
  constexpr int R = K / 2;
  constexpr int kChannels = Layout::kChannels, kColumns = Layout::kColumns, kLine = kColumns + 2 * R;
  constexpr int kLoads = (kLine * kChannels + kThreads - 1) / kThreads;  // of a line, per thread
  __shared__ float lines[2][kLine * kChannels];

  // Neighbouring blocks share columns, then channels, then rows: what they read twice is still in the cache.
  int64_t rest = blockIdx.x;
  const int strip = static_cast<int>(rest % tiling.strips);
  rest /= tiling.strips;
  const int part = static_cast<int>(rest % tiling.channel_parts);
  rest /= tiling.channel_parts;
  const int row_block = static_cast<int>(rest % tiling.row_blocks);
  const int64_t picture = rest / tiling.row_blocks;

  const int C = static_cast<int>(a.channels), H = static_cast<int>(a.height), W = static_cast<int>(a.width);
  const int64_t channel_stride = Layout::kPlanar ? a.height * a.width : 1;
  const int64_t column_stride = Layout::kPlanar ? 1 : a.channels;
  const int64_t row_stride = column_stride * a.width;
  const int first_channel = part * kChannels, first_column = strip * kColumns;
  const int top = row_block * kBlockRows, bottom = min(top + kBlockRows, H);
  const int64_t origin = picture * a.channels * a.height * a.width;
  const T* attn = static_cast<const T*>(a.attn) + origin;
  const T* value = static_cast<const T*>(a.value) + origin;
  T* out = static_cast<T*>(a.out) + origin;

  // Thread i works on element i of a [columns][channels] (channels-last) or [channels][columns] (planar)
  // array.
  const int thread = static_cast<int>(threadIdx.x);
  const int my_channel = Layout::kPlanar ? thread / kColumns : thread % kChannels;
  const int my_column = Layout::kPlanar ? thread % kColumns : thread / kChannels;
  const int channel = first_channel + my_channel, column = first_column + my_column;
  const bool active = channel < C && column < W;
  const int64_t my_offset = channel * channel_stride + column * column_stride;

  float weight_row[K], weight_col[K], recent[K];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    weight_row[k] =
        active ? weight_at<T>(a.weight_row, a.weight_row_is_float32, int64_t{channel} * K + k) : 0.0f;
    weight_col[k] =
        active ? weight_at<T>(a.weight_col, a.weight_col_is_float32, int64_t{channel} * K + k) : 0.0f;
    recent[k] = 0.0f;
  }

  // What this thread loads of every line: offset of the element in its row, or -1 outside the picture.
  int64_t load_offset[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int slot = thread + i * kThreads;
    const int line_channel = Layout::kPlanar ? slot / kLine : slot % kChannels;
    const int line_column = Layout::kPlanar ? slot % kLine : slot / kChannels;
    const int x = first_column + line_column - R, c = first_channel + line_channel;
    const bool inside = slot < kLine * kChannels && x >= 0 && x < W && c < C;
    load_offset[i] = inside ? c * channel_stride + x * column_stride : -1;
  }

  for (int h = top - R; h < bottom + R; ++h) {
    float row = 0.0f;
    if (h >= 0 && h < H) {  // the same for the whole block
      float* line = lines[h & 1];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int slot = thread + i * kThreads;
        if (slot < kLine * kChannels) {
          line[slot] = load_offset[i] >= 0 ? gelu(to_float(attn[h * row_stride + load_offset[i]])) : 0.0f;
        }
      }
      // One barrier is enough: this line is written again two rows on, after a barrier all readers have
      // reached.
      __syncthreads();
      const int tap_stride = Layout::kPlanar ? 1 : kChannels;
      const float* taps = line + (Layout::kPlanar ? my_channel * kLine + my_column : thread);
#pragma unroll
      for (int k = 0; k < K; ++k) row += weight_row[k] * taps[k * tap_stride];
      row = gelu(row);
    }
#pragma unroll
    for (int k = 0; k + 1 < K; ++k) recent[k] = recent[k + 1];
    recent[K - 1] = row;

    const int centre = h - R;
    if (centre >= top && active) {
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < K; ++k) sum += weight_col[k] * recent[k];
      const int64_t at = centre * row_stride + my_offset;
      out[at] = from_float<T>(sum * to_float(value[at]));
    }
  }
}

template <typename T, int K, typename Layout>
cudaError_t launch(const DecoupledAttentionCuda& a, cudaStream_t stream) {
  const Tiling tiling = make_tiling<Layout>(a);
  if (tiling.blocks == 0) return cudaSuccess;
  if (tiling.blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH((decoupled_attention_kernel<T, K, Layout>), static_cast<unsigned>(tiling.blocks),
                     kThreads, 0, stream, a, tiling);
}

template <typename T, int K>
cudaError_t launch_layout(const DecoupledAttentionCuda& a, cudaStream_t stream) {
  return a.channels_last ? launch<T, K, ChannelsLast>(a, stream) : launch<T, K, Planar>(a, stream);
}

template <typename T>
cudaError_t launch_taps(const DecoupledAttentionCuda& a, cudaStream_t stream) {
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

cudaError_t launch_decoupled_attention(const DecoupledAttentionCuda& arguments, cudaStream_t stream) {
  return dispatch_type(
      arguments.type, [&](auto tag) { return launch_taps<typename decltype(tag)::Type>(arguments, stream); });
}

}  // namespace aicr
