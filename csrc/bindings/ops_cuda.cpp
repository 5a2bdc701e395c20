// CUDA kernels of the operators in ops_schemas.cpp.
#include "bindings/namespaces.hpp"
#include "cuda/decoupled_attention.hpp"
#include "cuda/integer_ops.hpp"

AICR_CUDA_KERNELS(library) {
  library.impl("decoupled_attention", TORCH_BOX(&aicr::decoupled_attention_cuda));
  library.impl("integer_asinh", TORCH_BOX(&aicr::integer_asinh_cuda));
  library.impl("integer_depthwise", TORCH_BOX(&aicr::integer_depthwise_cuda));
  library.impl("integer_gate", TORCH_BOX(&aicr::integer_gate_cuda));
  library.impl("integer_linear", TORCH_BOX(&aicr::integer_linear_cuda));
  library.impl("integer_sum", TORCH_BOX(&aicr::integer_sum_cuda));
}
