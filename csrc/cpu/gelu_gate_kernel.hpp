// The compute interface of gelu_gate on the CPU. No torch here; gelu_gate.cpp calls it.
#pragma once

#include <cstdint>

namespace aicr {

// Memory as [rows][2][run], the gate before what it lets pass: of a channels-last map the rows are pixels, of
// planes they are pictures. Results are [rows][run].
struct GeluGateShape {
  int64_t rows, run;
};

// Number of pieces the work falls into.
int64_t gelu_gate_pieces(const GeluGateShape& shape);

// Pieces first <= i < last.
// T: float, BFloat16, Half (arithmetic in float), double.
template <typename T>
void gelu_gate_run(const GeluGateShape& shape, const T* x, T* out, int64_t first, int64_t last);

template <typename T>
void gelu_gate_backward_run(const GeluGateShape& shape, const T* grad, const T* x, T* grad_x, int64_t first,
                            int64_t last);

}  // namespace aicr
