// CUDA kernels of the operators in ops_schemas.cpp.
#include <torch/csrc/stable/library.h>

#include "cuda/decoupled_attention.hpp"

STABLE_TORCH_LIBRARY_IMPL(aicr_ext, CUDA, library) {
  library.impl("decoupled_attention", TORCH_BOX(&aicr::decoupled_attention_cuda));
}
