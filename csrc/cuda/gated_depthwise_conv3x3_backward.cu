// The derivatives of gated_depthwise_conv3x3 in one pass. With the halves a and b of c = dwconv_{3x3}(x) +
// bias and the result f(a) * b,
//
//   d = (grad * b * f'(a), grad * f(a))
//   grad_x = dwconv_{3x3}(d) with the taps flipped    grad_weight[tap] = sum of d * x at the tap
//
// and grad_bias = sum of d; all in float32.
//
// Layout: channels-last, neighbouring threads lie along 16 channels; as planes, along columns.
//
// Tile: a block has 32 columns of 16 channels, in both halves, and walks down 8 ... 64 rows, as many as still
// give enough blocks. A thread has two columns, and the 32 threads more beside the tile are for their d. Each
// row of x that comes in completes a row of c and so of d; of d the neighbours' columns come through shared
// memory (two lines for two rows, one barrier per row), and grad_x and the gradients of the weight follow
// from it as depthwise3x3_backward.cuh has it. The next row of x is on its way meanwhile. So nothing but d
// leaves the registers, and rows are computed twice only where walks meet; a square tile that holds d would
// compute a frame around it twice. The taps are read from shared memory at each row, which makes room for two
// blocks beside one another.
//
// Shared: 25 KiB, of which 22.5 are the lines and, later, the sums over pixels.
//
// Memory: x and grad read once, grad_x written once; of x four rows per walk and six columns in 32 again, of
// grad two and four, mostly from the first and the second cache; for the sums 80 bytes per walk and channel
// of grad written and read. Computed twice: c and d, at two rows per walk, and at four columns in 32. 110
// FLOP, an erf and an exp per element of grad.
//
// Determinism: every element of grad_x is computed by one thread, row by row, whatever the blocks. These
// follow from the shape, and the order of the sums over pixels from them: a thread's rows, the threads of a
// block, then the blocks, in double (sum_parts.cu). No atomics.
#include "cuda/depthwise3x3_backward.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/gated_depthwise_conv3x3.cuh"
#include "cuda/gelu.cuh"
#include "cuda/launch.cuh"
#include "cuda/sum_parts.cuh"

namespace aicr {
namespace {

using Tile = DepthwiseTile<1>;
constexpr int kHalves = 2;
constexpr int kBlocks = 2;  // at least, beside one another on a multiprocessor

// The terms of 16 channels, for both halves; of the taps also the last one first.
struct Terms {
  alignas(8) float forwards[kDepthwiseTerms][Tile::kChannels][kHalves];
  alignas(8) float backwards[kDepthwiseTaps][Tile::kChannels][kHalves];

  template <typename T>
  __device__ __forceinline__ void load(const GatedDepthwiseBackwardCuda& a, int first_channel) {
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kChannels * kHalves; i += Tile::kThreads) {
      const int lane = i / kHalves, half = i % kHalves;
      const int64_t channel = int64_t{half} * a.channels + first_channel + lane;
      const bool there = first_channel + lane < a.channels;
#pragma unroll
      for (int tap = 0; tap < kDepthwiseTaps; ++tap) {
        const float value =
            there ? weight_at<T>(a.weight, a.weight_is_float32, channel * kDepthwiseTaps + tap) : 0.0f;
        forwards[tap][lane][half] = backwards[kDepthwiseTaps - 1 - tap][lane][half] = value;
      }
      forwards[kDepthwiseTaps][lane][half] =
          there && a.bias != nullptr ? weight_at<T>(a.bias, a.bias_is_float32, channel) : 0.0f;
    }
  }
};

template <typename T, bool kPlanar>
__global__ void __launch_bounds__(Tile::kThreads, kBlocks)
    gated_depthwise_conv3x3_backward_kernel(GatedDepthwiseBackwardCuda a, DepthwiseTiling tiling) {
  alignas(8) __shared__ float shared[kDepthwiseTerms][Tile::kThreads][kHalves];
  __shared__ Terms terms;
  const int C = static_cast<int>(a.channels), H = static_cast<int>(a.height), W = static_cast<int>(a.width);
  const DepthwiseTask<1, kPlanar> task(tiling, C, H, W);
  terms.load<T>(a, task.first_channel);
  __syncthreads();

  const int64_t pixels = a.height * a.width, half = a.channels * (kPlanar ? pixels : 1);
  const int x_column = kPlanar ? 1 : 2 * C, grad_column = kPlanar ? 1 : C;
  const int64_t x_row = a.width * x_column, grad_row = a.width * grad_column;
  const int64_t channel = task.channel * (kPlanar ? pixels : 1);
  // Where the thread's first column lies in the row of x that comes in next, and in that of grad before it.
  int64_t x_at = task.picture * 2 * a.channels * pixels + channel + int64_t{task.column} * x_column +
                 (task.top - 2) * x_row;
  int64_t grad_at = task.picture * a.channels * pixels + channel + int64_t{task.column} * grad_column +
                    (task.top - 3) * grad_row;
  T next_x[4][kHalves];
  const auto load_x = [&](int row) {
    const T* const x = static_cast<const T*>(a.x) + x_at;
    const bool has = row >= 0 && row < H;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int i = 0; i < kHalves; ++i) {
        next_x[k][i] = has && task.inside[k] ? x[(k - 1) * x_column + i * half] : from_float<T>(0.0f);
      }
    }
    x_at += x_row;
  };

  const int thread = static_cast<int>(threadIdx.x);
  float weight[kDepthwiseTaps][kHalves], bias[kHalves];
  DepthwiseSums<kHalves> c[2] = {};
  DepthwiseGradients<kHalves> gradients = {};
  load_x(task.top - 2);
  for (int h = task.top - 2; h < task.bottom + 2; ++h, grad_at += grad_row) {
    const int row = h - 1;
    const bool has_d = row >= max(task.top - 1, 0) && row < H;
    float of_x[4][kHalves], own[2][kHalves], up[2];
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      up[p] = has_d && task.inside[p + 1] ? to_float(static_cast<const T*>(a.grad)[grad_at + p * grad_column])
                                          : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int i = 0; i < kHalves; ++i) of_x[k][i] = to_float(next_x[k][i]);
    }
#pragma unroll
    for (int tap = 0; tap < kDepthwiseTaps; ++tap) {
      load_floats<kHalves>(terms.forwards[tap][task.lane], weight[tap]);
    }
    load_floats<kHalves>(terms.forwards[kDepthwiseTaps][task.lane], bias);
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      c[p].next(bias);
      c[p].add(of_x + p, weight);
#pragma unroll
      for (int i = 0; i < kHalves; ++i) own[p][i] = task.has(h) ? of_x[p + 1][i] : 0.0f;
    }
    gradients.next(own);
    load_x(h <= task.bottom ? h + 1 : -1);  // which is nowhere
    if (row < task.top - 1) continue;

    float d[4][kHalves] = {};
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      if (!has_d || !task.inside[p + 1]) continue;
      const float gate = c[p].rows[0][0], value = c[p].rows[0][1];
      const GeluWithSlope of_gate = a.gelu ? gelu_with_slope(gate) : GeluWithSlope{gate, 1.0f};
      d[p + 1][0] = up[p] * value * of_gate.slope;
      d[p + 1][1] = up[p] * of_gate.value;
    }
    // One barrier is enough: these lines are written again two rows on, after a barrier all readers have
    // reached.
    auto* const line = shared + 2 * (row & 1);
    store_floats<kHalves>(d[1], line[0][thread]);
    store_floats<kHalves>(d[2], line[1][thread]);
    __syncthreads();
    if (!task.owns) continue;
    load_floats<kHalves>(line[1][thread - task.kStep], d[0]);
    load_floats<kHalves>(line[0][thread + task.kStep], d[3]);
#pragma unroll
    for (int tap = 0; tap < kDepthwiseTaps; ++tap) {
      load_floats<kHalves>(terms.backwards[tap][task.lane], weight[tap]);
    }
    gradients.add(d, weight);
    if (task.has(row)) gradients.add_to_bias(d);
    if (!task.has(row - 1)) continue;
    T* const grad_x = static_cast<T*>(a.grad_x) + x_at - 4 * x_row;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      if (!task.inside[p + 1]) continue;
#pragma unroll
      for (int i = 0; i < kHalves; ++i) {
        grad_x[p * x_column + i * half] = from_float<T>(gradients.grad_x[p].rows[0][i]);
      }
    }
  }
  put_terms(task, C, gradients.terms, shared, a.parts);
}

template <typename T, bool kPlanar>
cudaError_t launch(const GatedDepthwiseBackwardCuda& a, const DepthwiseTiling& tiling, cudaStream_t stream) {
  if (tiling.blocks == 0) return cudaSuccess;
  if (!tiling.fits(a.channels, a.height, a.width)) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH((gated_depthwise_conv3x3_backward_kernel<T, kPlanar>),
                     static_cast<unsigned>(tiling.blocks), Tile::kThreads, 0, stream, a, tiling);
}

DepthwiseTiling make_tiling(const GatedDepthwiseBackwardCuda& a) {
  return make_depthwise_tiling(a.batch, a.channels, a.height, a.width);
}

}  // namespace

int64_t gated_depthwise_backward_parts(const GatedDepthwiseBackwardCuda& arguments) {
  return make_tiling(arguments).parts * 2 * arguments.channels * kDepthwiseTerms;
}

cudaError_t launch_gated_depthwise_conv3x3_backward(const GatedDepthwiseBackwardCuda& arguments,
                                                    cudaStream_t stream) {
  const DepthwiseTiling tiling = make_tiling(arguments);
  const cudaError_t error = dispatch_type(arguments.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    return arguments.channels_last ? launch<T, false>(arguments, tiling, stream)
                                   : launch<T, true>(arguments, tiling, stream);
  });
  if (error != cudaSuccess) return error;
  const int64_t channels = 2 * arguments.channels;
  return launch_sum_parts({arguments.parts, tiling.parts, arguments.grad_weight, arguments.grad_bias,
                           channels * kDepthwiseTaps, channels},
                          stream);
}

}  // namespace aicr
