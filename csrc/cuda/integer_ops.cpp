// Host side of the integer operators on CUDA: checks, device, stream, launch. Never waits for the device.
#include "cuda/integer_ops.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/integer_ops.cuh"
#include "host/cuda_stream.hpp"
#include "host/integer_check.hpp"
#include "host/integer_shape.hpp"

namespace aicr {
namespace {

using torch::stable::contiguous;

// Dense, and in memory where its pairs of int16 can be read as one number.
Tensor dense_pairs(const Tensor& x) {
  const Tensor dense = contiguous(x);
  const auto address = reinterpret_cast<uintptr_t>(dense.const_data_ptr());
  return address % (2 * sizeof(int16_t)) == 0 ? dense : torch::stable::clone(dense);
}

}  // namespace

Tensor integer_linear_cuda(Tensor x, Tensor weight, Tensor bias, Tensor shift, Tensor slope,
                           std::optional<Tensor> residual, std::optional<Tensor> residual_shift) {
  check_integer_linear(x, weight, bias, shift, slope, residual, residual_shift);
  const CudaDeviceGuard guard(x.get_device_index());
  const Tensor dense_x = dense_pairs(x), dense_weight = dense_pairs(weight), dense_bias = contiguous(bias);
  const Tensor dense_shift = contiguous(shift), dense_slope = contiguous(slope);
  Tensor out = with_channels(x, weight.size(1));
  IntegerLinearCuda task{};
  task.rows = pixels_of(x);
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
  check_launch("integer_linear", launch_integer_linear(task, current_cuda_stream(x.get_device_index())));
  return out;
}

Tensor integer_depthwise_cuda(Tensor x, Tensor weight, Tensor bias, Tensor shift) {
  check_integer_depthwise(x, weight, bias, shift);
  const CudaDeviceGuard guard(x.get_device_index());
  const Tensor dense_x = contiguous(x), dense_weight = contiguous(weight), dense_bias = contiguous(bias);
  const Tensor dense_shift = contiguous(shift);
  Tensor out = torch::stable::empty_like(dense_x);
  IntegerDepthwiseCuda task{};
  task.height = x.size(0);
  task.width = x.size(1);
  task.channels = x.size(2);
  task.x = dense_x.const_data_ptr<int16_t>();
  task.weight = dense_weight.const_data_ptr<int16_t>();
  task.bias = dense_bias.const_data_ptr<int32_t>();
  task.shift = dense_shift.const_data_ptr<int32_t>();
  task.out = out.mutable_data_ptr<int16_t>();
  check_launch("integer_depthwise",
               launch_integer_depthwise(task, current_cuda_stream(x.get_device_index())));
  return out;
}

Tensor integer_sum_cuda(Tensor x) {
  check_halves("integer_sum", x);
  const CudaDeviceGuard guard(x.get_device_index());
  const int64_t channels = x.size(x.dim() - 1) / 2;
  const Tensor dense = contiguous(x);
  Tensor out = with_channels(x, channels);
  check_launch("integer_sum", launch_integer_sum(pixels_of(x), channels, dense.const_data_ptr<int16_t>(),
                                                 out.mutable_data_ptr<int16_t>(),
                                                 current_cuda_stream(x.get_device_index())));
  return out;
}

Tensor integer_gate_cuda(Tensor x, int64_t shift) {
  check_halves("integer_gate", x);
  check_gate_shift(shift);
  const CudaDeviceGuard guard(x.get_device_index());
  const int64_t channels = x.size(x.dim() - 1) / 2;
  const Tensor dense = contiguous(x);
  Tensor out = with_channels(x, channels);
  check_launch("integer_gate",
               launch_integer_gate(pixels_of(x), channels, static_cast<int32_t>(shift),
                                   dense.const_data_ptr<int16_t>(), out.mutable_data_ptr<int16_t>(),
                                   current_cuda_stream(x.get_device_index())));
  return out;
}

Tensor integer_asinh_cuda(Tensor value, Tensor exponent, Tensor table) {
  check_integer_asinh(value, exponent, table);
  const CudaDeviceGuard guard(value.get_device_index());
  const int64_t channels = value.size(value.dim() - 1);
  const Tensor dense = contiguous(value), dense_exponent = contiguous(exponent),
               dense_table = contiguous(table);
  Tensor out = with_channels(value, channels);
  check_launch(
      "integer_asinh",
      launch_integer_asinh(pixels_of(value), channels, dense.const_data_ptr<int32_t>(),
                           dense_exponent.const_data_ptr<int32_t>(), dense_table.const_data_ptr<int32_t>(),
                           out.mutable_data_ptr<int16_t>(), current_cuda_stream(value.get_device_index())));
  return out;
}

}  // namespace aicr
