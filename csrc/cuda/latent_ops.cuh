// The launch interface of the operators of a coding step on CUDA. No torch here; latent_ops.cpp calls it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/latent.hpp"

namespace aicr {

// Each queues its kernel for so many pixels on the stream; everything is dense. cudaErrorInvalidConfiguration
// if there are 2^31 numbers or more.

// To index [pixels][channels / 2].
cudaError_t launch_latent_scale_index(const LatentStep& task, int64_t pixels, uint8_t* index,
                                      cudaStream_t stream);

// y [pixels][channels] to symbols and index [pixels][channels / 2].
cudaError_t launch_latent_quantise(const LatentStep& task, int64_t pixels, const float* y, int16_t* symbols,
                                   uint8_t* index, cudaStream_t stream);

// Symbols [pixels][channels / 2] and, for the second step, values [pixels][channels] to out of their shape.
cudaError_t launch_latent_accept(const LatentStep& task, int64_t pixels, const int16_t* symbols,
                                 const int32_t* values, int32_t* out, cudaStream_t stream);

// Values [pixels][channels] to out of their shape; the task has no parameters.
cudaError_t launch_latent_dequantise(const LatentStep& task, int64_t pixels, const int32_t* values,
                                     float* out, cudaStream_t stream);

}  // namespace aicr
