// CUDA kernels of the operators in ops_schemas.cpp.
#include "bindings/namespaces.hpp"
#include "cuda/decoupled_attention.hpp"
#include "cuda/integer_ops.hpp"
#include "cuda/rans_ops.hpp"

AICR_CUDA_KERNELS(library) {
  library.impl("decoupled_attention", TORCH_BOX(&aicr::decoupled_attention_cuda));
  library.impl("integer_asinh", TORCH_BOX(&aicr::integer_asinh_cuda));
  library.impl("integer_depthwise", TORCH_BOX(&aicr::integer_depthwise_cuda));
  library.impl("integer_gate", TORCH_BOX(&aicr::integer_gate_cuda));
  library.impl("integer_linear", TORCH_BOX(&aicr::integer_linear_cuda));
  library.impl("integer_sum", TORCH_BOX(&aicr::integer_sum_cuda));
  library.impl("rans_decode_begin", TORCH_BOX(&aicr::rans_decode_begin_cuda));
  library.impl("rans_decode_end", TORCH_BOX(&aicr::rans_decode_end_cuda));
  library.impl("rans_decode_step", TORCH_BOX(&aicr::rans_decode_step_cuda));
  library.impl("rans_encode", TORCH_BOX(&aicr::rans_encode_cuda));
}
