// The entropy coder on CUDA, as torch calls it: many streams at once.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/tensor.h>

namespace aicr {

using torch::stable::Tensor;

// See aicr_ext/ops/rans.py for the arguments.
std::tuple<Tensor, Tensor> rans_encode_cuda(std::vector<Tensor> symbols, std::vector<Tensor> index,
                                            std::vector<Tensor> tables, std::vector<Tensor> splits,
                                            int64_t lanes);
Tensor rans_decode_begin_cuda(Tensor data, Tensor ends);
Tensor rans_decode_step_cuda(Tensor state, Tensor data, Tensor index, Tensor tables, Tensor splits);
Tensor rans_decode_end_cuda(Tensor state, Tensor data);

}  // namespace aicr
