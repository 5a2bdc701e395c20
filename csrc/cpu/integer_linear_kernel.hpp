// The compute interface of integer_linear on the CPU. No torch here; integer_linear.cpp calls it.
#pragma once

#include <cstdint>

#include "common/integer.hpp"

namespace aicr {

// Arguments of the operator as aicr_ext/ops/integer.py describes them. `residual` and `residual_shift` may be
// null together.
struct IntegerLinear {
  int64_t inputs, outputs;
  const int16_t* x;       // [rows][inputs]
  const int16_t* weight;  // [inputs / 2][outputs][2]
  const int32_t *bias, *shift, *slope;
  const int16_t* residual;  // [rows][outputs]
  const int32_t* residual_shift;
  int16_t* out;  // [rows][outputs]
};

// Rows first <= i < last, with the fastest instruction set this processor has and AICR_ISA allows.
void integer_linear_run(const IntegerLinear& task, int64_t first, int64_t last);

// The loops of one instruction set; the vector ones do as many outputs as fill their registers and return
// how many those are.
void integer_linear_scalar(const IntegerLinear& task, int64_t first, int64_t last, int64_t first_output);
int64_t integer_linear_avx2(const IntegerLinear& task, int64_t first, int64_t last);
int64_t integer_linear_avx512(const IntegerLinear& task, int64_t first, int64_t last);

}  // namespace aicr
