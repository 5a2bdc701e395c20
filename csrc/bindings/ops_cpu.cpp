// CPU kernels of the operators in ops_schemas.cpp.
#include <torch/csrc/stable/library.h>

#include "cpu/channel_gram.hpp"
#include "cpu/decoupled_attention.hpp"
#include "cpu/gated_depthwise_conv3x3.hpp"
#include "cpu/gelu_gate.hpp"
#include "cpu/integer_ops.hpp"
#include "cpu/latent_ops.hpp"
#include "cpu/layer_norm2d.hpp"
#include "cpu/pointwise_tiles.hpp"
#include "cpu/pointwise_tiles_kernel.hpp"
#include "cpu/rans_ops.hpp"

STABLE_TORCH_LIBRARY_IMPL(aicr_ext, CPU, library) {
  library.impl("channel_gram", TORCH_BOX(&aicr::channel_gram_cpu));
  library.impl("decoupled_attention", TORCH_BOX(&aicr::decoupled_attention_cpu));
  library.impl("decoupled_attention_backward", TORCH_BOX(&aicr::decoupled_attention_backward_cpu));
  library.impl("depthwise_conv3x3", TORCH_BOX(&aicr::depthwise_conv3x3_cpu));
  library.impl("gated_depthwise_conv3x3", TORCH_BOX(&aicr::gated_depthwise_conv3x3_cpu));
  library.impl("gated_depthwise_conv3x3_backward", TORCH_BOX(&aicr::gated_depthwise_conv3x3_backward_cpu));
  library.impl("gelu_gate", TORCH_BOX(&aicr::gelu_gate_cpu));
  library.impl("gelu_gate_backward", TORCH_BOX(&aicr::gelu_gate_backward_cpu));
  library.impl("integer_asinh", TORCH_BOX(&aicr::integer_asinh_cpu));
  library.impl("integer_depthwise", TORCH_BOX(&aicr::integer_depthwise_cpu));
  library.impl("integer_gate", TORCH_BOX(&aicr::integer_gate_cpu));
  library.impl("integer_linear", TORCH_BOX(&aicr::integer_linear_cpu));
  library.impl("integer_sum", TORCH_BOX(&aicr::integer_sum_cpu));
  library.impl("latent_accept", TORCH_BOX(&aicr::latent_accept_cpu));
  library.impl("latent_dequantise", TORCH_BOX(&aicr::latent_dequantise_cpu));
  library.impl("latent_quantise", TORCH_BOX(&aicr::latent_quantise_cpu));
  library.impl("latent_scale_index", TORCH_BOX(&aicr::latent_scale_index_cpu));
  library.impl("layer_norm2d", TORCH_BOX(&aicr::layer_norm2d_cpu));
  library.impl("layer_norm2d_backward", TORCH_BOX(&aicr::layer_norm2d_backward_cpu));
  library.impl("pointwise_tiles", TORCH_BOX(&aicr::pointwise_tiles_cpu));
  library.impl("pointwise_tiles_into", TORCH_BOX(&aicr::pointwise_tiles_into_cpu));
  library.impl("rans_decode_begin", TORCH_BOX(&aicr::rans_decode_begin_cpu));
  library.impl("rans_decode_end", TORCH_BOX(&aicr::rans_decode_end_cpu));
  library.impl("rans_decode_step", TORCH_BOX(&aicr::rans_decode_step_cpu));
  library.impl("rans_encode", TORCH_BOX(&aicr::rans_encode_cpu));
}

// Without a tensor no device is chosen.
STABLE_TORCH_LIBRARY_IMPL(aicr_ext, CompositeExplicitAutograd, library) {
  library.impl("has_pointwise_tiles", TORCH_BOX(&aicr::has_pointwise_tiles));
}
