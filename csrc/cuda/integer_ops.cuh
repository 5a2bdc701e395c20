// The launch interface of the integer operators on CUDA. No torch here; integer_ops.cpp calls it.
// Arguments are those of aicr_ext/ops/integer.py, all dense; x and weight of the linear one are aligned to 4
// bytes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace aicr {

struct IntegerLinearCuda {
  int64_t rows, inputs, outputs;
  const int16_t* x;       // [rows][inputs]
  const int16_t* weight;  // [inputs / 2][outputs][2]
  const int32_t *bias, *shift, *slope;
  const int16_t* residual;  // [rows][outputs], or null
  const int32_t* residual_shift;
  int16_t* out;  // [rows][outputs]
};

struct IntegerDepthwiseCuda {
  int64_t height, width, channels;
  const int16_t* x;       // [height][width][channels]
  const int16_t* weight;  // [9][channels]
  const int32_t *bias, *shift;
  int16_t* out;
};

// Each queues its kernel on the stream; cudaErrorInvalidConfiguration if it needs more than 2^31 - 1 blocks,
// or the linear one has about as many rows, inputs or outputs.
cudaError_t launch_integer_linear(const IntegerLinearCuda& task, cudaStream_t stream);
cudaError_t launch_integer_depthwise(const IntegerDepthwiseCuda& task, cudaStream_t stream);
cudaError_t launch_integer_sum(int64_t pixels, int64_t channels, const int16_t* x, int16_t* out,
                               cudaStream_t stream);
cudaError_t launch_integer_gate(int64_t pixels, int64_t channels, int32_t shift, const int16_t* x,
                                int16_t* out, cudaStream_t stream);
cudaError_t launch_integer_asinh(int64_t pixels, int64_t channels, const int32_t* value,
                                 const int32_t* exponent, const int32_t* table, int16_t* out,
                                 cudaStream_t stream);

}  // namespace aicr
