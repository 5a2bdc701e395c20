// The compute interfaces of integer_depthwise, integer_sum, integer_gate and integer_asinh on the CPU. No
// torch here; integer_ops.cpp calls them. Arguments are those of aicr_ext/ops/integer.py.
#pragma once

#include <cstdint>

namespace aicr {

struct IntegerDepthwise {
  int64_t height, width, channels;
  const int16_t* x;       // [height][width][channels]
  const int16_t* weight;  // [9][channels]
  const int32_t *bias, *shift;
  int16_t* out;
};

// Rows of the picture first <= i < last.
void integer_depthwise_run(const IntegerDepthwise& task, int64_t first, int64_t last);

// Of pixels [pixels][2][channels] to [pixels][channels].
void integer_sum_run(int64_t pixels, int64_t channels, const int16_t* x, int16_t* out);
void integer_gate_run(int64_t pixels, int64_t channels, int32_t shift, const int16_t* x, int16_t* out);

void integer_asinh_run(int64_t pixels, int64_t channels, const int32_t* value, const int32_t* exponent,
                       const int32_t* table, int16_t* out);

}  // namespace aicr
