// The derivatives of dwconv_{3x3}(x) + bias in one pass, from the gradient d of its result:
//
//   grad_x = dwconv_{3x3}(d) with the taps flipped    grad_weight[tap] = sum of d * x at the tap
//
// and grad_bias = sum of d; all in float32.
//
// Layout: channels-last, neighbouring threads lie along 16 channels; as planes, along columns.
//
// Tile: a block has 32 columns of 16 channels and walks down 8 ... 64 rows, as many as still give enough
// blocks. A thread has two columns and reads d there and at one column more on each side; the rest is in
// depthwise3x3_backward.cuh. The next row of d and x is on its way meanwhile.
//
// Shared: 10 KiB for the sums over pixels, at the end.
//
// Memory: x and d read once, grad_x written once; of d two rows per walk again, and of its columns each twice
// from the first cache; for the sums 40 bytes per walk and channel written and read. 38 FLOP per element.
//
// Determinism: as gated_depthwise_conv3x3_backward.cu.
#include "cuda/depthwise_conv3x3.cuh"

#include "cuda/depthwise3x3_backward.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/launch.cuh"
#include "cuda/sum_parts.cuh"

namespace aicr {
namespace {

using Tile = DepthwiseTile<0>;
constexpr int kBlocks = 4;  // at least, beside one another on a multiprocessor

template <typename T, bool kPlanar>
__global__ void __launch_bounds__(Tile::kThreads, kBlocks)
    depthwise_conv3x3_backward_kernel(DepthwiseBackwardCuda a, DepthwiseTiling tiling) {
  __shared__ float shared[kDepthwiseTerms][Tile::kThreads][1];
  const int C = static_cast<int>(a.channels), H = static_cast<int>(a.height), W = static_cast<int>(a.width);
  const DepthwiseTask<0, kPlanar> task(tiling, C, H, W);
  float flipped[kDepthwiseTaps][1] = {};
  if (task.owns) {
#pragma unroll
    for (int tap = 0; tap < kDepthwiseTaps; ++tap) {
      flipped[kDepthwiseTaps - 1 - tap][0] =
          weight_at<T>(a.weight, a.weight_is_float32, int64_t{task.channel} * kDepthwiseTaps + tap);
    }
  }

  const int64_t pixels = a.height * a.width;
  const int column = kPlanar ? 1 : C;
  const int64_t row_stride = a.width * column;
  // Where the thread's first column lies in the row of d that comes in next.
  int64_t at = task.picture * a.channels * pixels + task.channel * (kPlanar ? pixels : 1) +
               int64_t{task.column} * column + (task.top - 1) * row_stride;
  T next_d[4], next_x[2];
  const auto load = [&](int row) {  // of d, and of x the one behind
    const T* const d = static_cast<const T*>(a.grad) + at;
    const T* const x = static_cast<const T*>(a.x) + at + row_stride;
    const bool has_d = row >= 0 && row < H;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      next_d[k] = has_d && task.inside[k] ? d[(k - 1) * column] : from_float<T>(0.0f);
    }
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      next_x[p] = task.has(row + 1) && task.inside[p + 1] ? x[p * column] : from_float<T>(0.0f);
    }
    at += row_stride;
  };

  DepthwiseGradients<1> gradients = {};
  load(task.top - 1);
  for (int row = task.top - 1; row <= task.bottom; ++row) {
    float d[4][1], x[2][1];
#pragma unroll
    for (int k = 0; k < 4; ++k) d[k][0] = to_float(next_d[k]);
#pragma unroll
    for (int p = 0; p < 2; ++p) x[p][0] = to_float(next_x[p]);
    load(row < task.bottom ? row + 1 : -2);  // which is nowhere
    gradients.next(x);
    gradients.add(d, flipped);
    if (task.has(row)) gradients.add_to_bias(d);
    if (!task.has(row - 1)) continue;
    T* const grad_x = static_cast<T*>(a.grad_x) + at - 3 * row_stride;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      if (task.inside[p + 1]) grad_x[p * column] = from_float<T>(gradients.grad_x[p].rows[0][0]);
    }
  }
  put_terms(task, C, gradients.terms, shared, a.parts);
}

template <typename T, bool kPlanar>
cudaError_t launch(const DepthwiseBackwardCuda& a, const DepthwiseTiling& tiling, cudaStream_t stream) {
  if (tiling.blocks == 0) return cudaSuccess;
  if (!tiling.fits(a.channels, a.height, a.width)) return cudaErrorInvalidConfiguration;
  return AICR_LAUNCH((depthwise_conv3x3_backward_kernel<T, kPlanar>), static_cast<unsigned>(tiling.blocks),
                     Tile::kThreads, 0, stream, a, tiling);
}

DepthwiseTiling make_tiling(const DepthwiseBackwardCuda& a) {
  return make_depthwise_tiling(a.batch, a.channels, a.height, a.width);
}

}  // namespace

int64_t depthwise_backward_parts(const DepthwiseBackwardCuda& arguments) {
  return make_tiling(arguments).parts * arguments.channels * kDepthwiseTerms;
}

cudaError_t launch_depthwise_conv3x3_backward(const DepthwiseBackwardCuda& arguments, cudaStream_t stream) {
  const DepthwiseTiling tiling = make_tiling(arguments);
  const cudaError_t error = dispatch_type(arguments.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    return arguments.channels_last ? launch<T, false>(arguments, tiling, stream)
                                   : launch<T, true>(arguments, tiling, stream);
  });
  if (error != cudaSuccess) return error;
  return launch_sum_parts({arguments.parts, tiling.parts, arguments.grad_weight, arguments.grad_bias,
                           arguments.channels * kDepthwiseTaps, arguments.channels},
                          stream);
}

}  // namespace aicr
