// CUDA kernels of the operators in ops_schemas.cpp.
#include "bindings/namespaces.hpp"
#include "cuda/decoupled_attention.hpp"
#include "cuda/depthwise_conv3x3.hpp"
#include "cuda/depthwise_gram.hpp"
#include "cuda/fold_channel_attention.hpp"
#include "cuda/gated_depthwise_conv3x3.hpp"
#include "cuda/gelu_gate.hpp"
#include "cuda/integer_ops.hpp"
#include "cuda/layer_norm2d.hpp"
#include "cuda/layer_norm_conv1x1.hpp"
#include "cuda/rans_ops.hpp"

AICR_CUDA_KERNELS(library) {
  library.impl("decoupled_attention", TORCH_BOX(&aicr::decoupled_attention_cuda));
  library.impl("decoupled_attention_backward", TORCH_BOX(&aicr::decoupled_attention_backward_cuda));
  library.impl("depthwise_conv3x3_backward", TORCH_BOX(&aicr::depthwise_conv3x3_backward_cuda));
  library.impl("depthwise_gram", TORCH_BOX(&aicr::depthwise_gram_cuda));
  library.impl("fold_channel_attention", TORCH_BOX(&aicr::fold_channel_attention_cuda));
  library.impl("gated_depthwise_conv3x3", TORCH_BOX(&aicr::gated_depthwise_conv3x3_cuda));
  library.impl("gated_depthwise_conv3x3_backward", TORCH_BOX(&aicr::gated_depthwise_conv3x3_backward_cuda));
  library.impl("gelu_gate", TORCH_BOX(&aicr::gelu_gate_cuda));
  library.impl("gelu_gate_backward", TORCH_BOX(&aicr::gelu_gate_backward_cuda));
  library.impl("integer_asinh", TORCH_BOX(&aicr::integer_asinh_cuda));
  library.impl("integer_depthwise", TORCH_BOX(&aicr::integer_depthwise_cuda));
  library.impl("integer_gate", TORCH_BOX(&aicr::integer_gate_cuda));
  library.impl("integer_linear", TORCH_BOX(&aicr::integer_linear_cuda));
  library.impl("integer_sum", TORCH_BOX(&aicr::integer_sum_cuda));
  library.impl("layer_norm2d", TORCH_BOX(&aicr::layer_norm2d_cuda));
  library.impl("layer_norm2d_backward", TORCH_BOX(&aicr::layer_norm2d_backward_cuda));
  library.impl("layer_norm_conv1x1", TORCH_BOX(&aicr::layer_norm_conv1x1_cuda));
  library.impl("rans_decode_begin", TORCH_BOX(&aicr::rans_decode_begin_cuda));
  library.impl("rans_decode_end", TORCH_BOX(&aicr::rans_decode_end_cuda));
  library.impl("rans_decode_step", TORCH_BOX(&aicr::rans_decode_step_cuda));
  library.impl("rans_encode", TORCH_BOX(&aicr::rans_encode_cuda));
}
