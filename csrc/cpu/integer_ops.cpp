// Host side of the integer operators on the CPU: checks and threads.
#include "cpu/integer_ops.hpp"

#include <torch/csrc/stable/ops.h>

#include "cpu/integer_elementwise_kernel.hpp"
#include "cpu/integer_linear_kernel.hpp"
#include "host/integer_check.hpp"
#include "host/integer_shape.hpp"

namespace aicr {
namespace {

using torch::stable::contiguous;

constexpr int64_t kRows = 48;           // of a matrix product: a piece of work for a thread
constexpr int64_t kElements = 1 << 15;  // of anything else

// Pixels that make a piece of work.
int64_t grain(int64_t channels) {
  return channels > 0 ? kElements / channels + 1 : kElements;
}

}  // namespace

Tensor integer_linear_cpu(Tensor x, Tensor weight, Tensor bias, Tensor shift, Tensor slope,
                          std::optional<Tensor> residual, std::optional<Tensor> residual_shift) {
  check_integer_linear(x, weight, bias, shift, slope, residual, residual_shift);
  const Tensor dense_x = contiguous(x), dense_weight = contiguous(weight), dense_bias = contiguous(bias);
  const Tensor dense_shift = contiguous(shift), dense_slope = contiguous(slope);
  Tensor out = with_channels(x, weight.size(1));
  IntegerLinear task{};
  task.inputs = 2 * weight.size(0);
  task.outputs = weight.size(1);
  task.x = dense_x.const_data_ptr<int16_t>();
  task.weight = dense_weight.const_data_ptr<int16_t>();
  task.bias = dense_bias.const_data_ptr<int32_t>();
  task.shift = dense_shift.const_data_ptr<int32_t>();
  task.slope = dense_slope.const_data_ptr<int32_t>();
  task.out = out.mutable_data_ptr<int16_t>();
  std::optional<Tensor> dense_residual, dense_residual_shift;
  if (residual.has_value()) {
    dense_residual = contiguous(*residual);
    dense_residual_shift = contiguous(*residual_shift);
    task.residual = dense_residual->const_data_ptr<int16_t>();
    task.residual_shift = dense_residual_shift->const_data_ptr<int32_t>();
  }
  torch::stable::parallel_for(0, pixels_of(x), kRows,
                              [&](int64_t first, int64_t last) { integer_linear_run(task, first, last); });
  return out;
}

Tensor integer_depthwise_cpu(Tensor x, Tensor weight, Tensor bias, Tensor shift) {
  check_integer_depthwise(x, weight, bias, shift);
  const Tensor dense_x = contiguous(x), dense_weight = contiguous(weight), dense_bias = contiguous(bias);
  const Tensor dense_shift = contiguous(shift);
  Tensor out = torch::stable::empty_like(dense_x);
  IntegerDepthwise task{};
  task.height = x.size(0);
  task.width = x.size(1);
  task.channels = x.size(2);
  task.x = dense_x.const_data_ptr<int16_t>();
  task.weight = dense_weight.const_data_ptr<int16_t>();
  task.bias = dense_bias.const_data_ptr<int32_t>();
  task.shift = dense_shift.const_data_ptr<int32_t>();
  task.out = out.mutable_data_ptr<int16_t>();
  const int64_t rows = grain(task.channels) / (task.width > 0 ? task.width : 1) + 1;
  torch::stable::parallel_for(0, task.height, rows,
                              [&](int64_t first, int64_t last) { integer_depthwise_run(task, first, last); });
  return out;
}

Tensor integer_sum_cpu(Tensor x) {
  check_halves("integer_sum", x);
  const int64_t channels = x.size(x.dim() - 1) / 2;
  const Tensor dense = contiguous(x);
  Tensor out = with_channels(x, channels);
  const int16_t* from = dense.const_data_ptr<int16_t>();
  int16_t* to = out.mutable_data_ptr<int16_t>();
  torch::stable::parallel_for(0, pixels_of(x), grain(channels), [&](int64_t first, int64_t last) {
    integer_sum_run(last - first, channels, from + 2 * first * channels, to + first * channels);
  });
  return out;
}

Tensor integer_gate_cpu(Tensor x, int64_t shift) {
  check_halves("integer_gate", x);
  check_gate_shift(shift);
  const int64_t channels = x.size(x.dim() - 1) / 2;
  const Tensor dense = contiguous(x);
  Tensor out = with_channels(x, channels);
  const int16_t* from = dense.const_data_ptr<int16_t>();
  int16_t* to = out.mutable_data_ptr<int16_t>();
  torch::stable::parallel_for(0, pixels_of(x), grain(channels), [&](int64_t first, int64_t last) {
    integer_gate_run(last - first, channels, static_cast<int32_t>(shift), from + 2 * first * channels,
                     to + first * channels);
  });
  return out;
}

Tensor integer_asinh_cpu(Tensor value, Tensor exponent, Tensor table) {
  check_integer_asinh(value, exponent, table);
  const int64_t channels = value.size(value.dim() - 1);
  const Tensor dense = contiguous(value), dense_exponent = contiguous(exponent),
               dense_table = contiguous(table);
  Tensor out = with_channels(value, channels);
  const int32_t *from = dense.const_data_ptr<int32_t>(),
                *exponents = dense_exponent.const_data_ptr<int32_t>();
  const int32_t* points = dense_table.const_data_ptr<int32_t>();
  int16_t* to = out.mutable_data_ptr<int16_t>();
  torch::stable::parallel_for(0, pixels_of(value), grain(channels), [&](int64_t first, int64_t last) {
    integer_asinh_run(last - first, channels, from + first * channels, exponents, points,
                      to + first * channels);
  });
  return out;
}

}  // namespace aicr
