// The compute interfaces of the operators of a coding step on the CPU. No torch here; latent_ops.cpp calls
// them. Each is for the pixels first <= i < last.
#pragma once

#include <cstdint>

#include "common/latent.hpp"

namespace aicr {

// To index [pixels][channels / 2].
void latent_scale_index_run(const LatentStep& task, uint8_t* index, int64_t first, int64_t last);

// y [pixels][channels] to symbols and index [pixels][channels / 2].
void latent_quantise_run(const LatentStep& task, const float* y, int16_t* symbols, uint8_t* index,
                         int64_t first, int64_t last);

// Symbols [pixels][channels / 2] and, for the second step, values [pixels][channels] to out of their shape.
void latent_accept_run(const LatentStep& task, const int16_t* symbols, const int32_t* values, int32_t* out,
                       int64_t first, int64_t last);

// Values [pixels][channels] to out of their shape; the task has no parameters.
void latent_dequantise_run(const LatentStep& task, const int32_t* values, float* out, int64_t first,
                           int64_t last);

}  // namespace aicr
