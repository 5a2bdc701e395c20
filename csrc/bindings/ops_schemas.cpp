// The schema of every operator. The implementations are registered in ops_cpu.cpp and ops_cuda.cpp; shapes,
// fake kernels, derivatives and FLOP formulas are registered in Python (aicr_ext/ops), and so are the
// definitions that run on the CPU where it has no kernel.
#include "bindings/namespaces.hpp"

AICR_SCHEMAS(library) {
  library.def(
      "channel_gram(Tensor q, Tensor k, int groups) -> (Tensor scores, Tensor q_norm, Tensor k_norm)");
  library.def(
      "decoupled_attention(Tensor attn, Tensor value, Tensor weight_row, Tensor weight_col) -> Tensor");
  library.def(
      "decoupled_attention_backward(Tensor grad, Tensor attn, Tensor value, Tensor weight_row, Tensor "
      "weight_col)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("depthwise_conv3x3(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  library.def(
      "depthwise_conv3x3_backward(Tensor grad, Tensor x, Tensor weight, bool with_bias)"
      " -> (Tensor, Tensor, Tensor)");
  library.def(
      "depthwise_gram(Tensor qk, Tensor weight, Tensor? bias, int groups)"
      " -> (Tensor scores, Tensor q_norm, Tensor k_norm)");
  library.def(
      "fold_channel_attention(Tensor scores, Tensor q_norm, Tensor k_norm, Tensor temperature, Tensor "
      "project_out) -> Tensor");
  library.def("gated_depthwise_conv3x3(Tensor x, Tensor weight, Tensor? bias, bool gelu) -> Tensor");
  library.def(
      "gated_depthwise_conv3x3_backward(Tensor grad, Tensor x, Tensor weight, Tensor? bias, bool gelu)"
      " -> (Tensor, Tensor, Tensor)");
  library.def("gelu_gate(Tensor x) -> Tensor");
  library.def("gelu_gate_backward(Tensor grad, Tensor x) -> Tensor");
  library.def("has_pointwise_tiles(bool bfloat16) -> bool");
  library.def("integer_asinh(Tensor value, Tensor exponent, Tensor table) -> Tensor");
  library.def("integer_depthwise(Tensor x, Tensor weight, Tensor bias, Tensor shift) -> Tensor");
  library.def("integer_gate(Tensor x, int shift) -> Tensor");
  library.def(
      "integer_linear(Tensor x, Tensor weight, Tensor bias, Tensor shift, Tensor slope, Tensor? residual, "
      "Tensor? residual_shift) -> Tensor");
  library.def("integer_sum(Tensor x) -> Tensor");
  library.def("latent_accept(Tensor symbols, Tensor parameters, Tensor exponent, Tensor? values) -> Tensor");
  library.def("latent_dequantise(Tensor values, Tensor exponent, Tensor? step) -> Tensor");
  library.def(
      "latent_quantise(Tensor y, Tensor parameters, Tensor exponent, Tensor? step, bool second, "
      "Tensor? zones, Tensor? noise, Tensor? variances) -> (Tensor symbols, Tensor index)");
  library.def("latent_scale_index(Tensor parameters, int channels, bool second) -> Tensor");
  library.def("layer_norm2d(Tensor x, Tensor weight, Tensor? bias, bool subtract_mean, float eps) -> Tensor");
  library.def(
      "layer_norm2d_backward(Tensor grad, Tensor x, Tensor weight, bool with_bias, bool subtract_mean, float "
      "eps)"
      " -> (Tensor, Tensor, Tensor)");
  library.def(
      "layer_norm_conv1x1(Tensor x, Tensor norm_weight, Tensor? norm_bias, Tensor weight, Tensor? bias, "
      "Tensor? second_weight, Tensor? second_bias, bool subtract_mean, float eps)"
      " -> (Tensor, Tensor)");
  library.def(
      "pointwise_tiles(Tensor x, Tensor? norm_weight, Tensor? norm_bias, Tensor weight, Tensor? bias, "
      "Tensor? second_weight, Tensor? second_bias, bool subtract_mean, float eps)"
      " -> (Tensor, Tensor)");
  library.def(
      "pointwise_tiles_into(Tensor x, Tensor? norm_weight, Tensor? norm_bias, Tensor weight, Tensor? bias, "
      "Tensor? second_weight, Tensor? second_bias, bool subtract_mean, float eps, Tensor? added, "
      "Tensor(a!) out, Tensor(b!)? second_out) -> ()");
  library.def("rans_decode_begin(Tensor data, Tensor ends) -> Tensor");
  library.def("rans_decode_end(Tensor state, Tensor data) -> Tensor");
  library.def(
      "rans_decode_step(Tensor(a!) state, Tensor data, Tensor index, Tensor tables, Tensor splits) -> "
      "Tensor");
  library.def(
      "rans_encode(Tensor[] symbols, Tensor[] index, Tensor[] tables, Tensor[] splits, int lanes)"
      " -> (Tensor data, Tensor ends)");
}
