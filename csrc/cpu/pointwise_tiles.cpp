// Host side of pointwise_tiles on the CPU: checks, layout, packed weights, threads.
#include "cpu/pointwise_tiles.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>

#include "cpu/accumulate.hpp"
#include "cpu/pointwise_tiles_kernel.hpp"
#include "host/layer_norm_conv1x1_check.hpp"
#include "host/layout.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What torch takes the kernel's values for.
template <typename Value>
using ElementOf = std::conditional_t<std::is_same_v<Value, float>, float, BFloat16>;

template <typename Value>
const Value* values_of(const Tensor& t) {
  return reinterpret_cast<const Value*>(t.const_data_ptr<ElementOf<Value>>());
}

Tensor empty_result(const Tensor& x, const Tensor& weight) {
  return torch::stable::empty({x.size(0), weight.size(0), x.size(2), x.size(3)}, x.scalar_type(),
                              std::nullopt, x.device(), std::nullopt, MemoryFormat::ChannelsLast);
}

// What a convolution multiplies by and adds, held while the kernel runs.
template <typename Value>
struct Packed {
  std::vector<typename PointwiseNumbers<Value>::Weight> weight;
  std::vector<float> bias;

  Packed(const Tensor& x, const Tensor& given, const std::optional<Tensor>& given_bias)
      : weight(pointwise_packed<Value>(x.size(1), given.size(0))) {
    const Tensor dense = torch::stable::contiguous(torch::stable::to(given, x.scalar_type()));
    pack_pointwise(values_of<Value>(dense), x.size(1), given.size(0), weight.data());
    if (given_bias) bias = weight_values<ElementOf<Value>, float>(*given_bias);
    bias.resize((given.size(0) + kPointwiseLanes - 1) / kPointwiseLanes * kPointwiseLanes);
  }

  PointwiseProduct<Value> product(Tensor& out) const {
    PointwiseProduct<Value> product{};
    product.weight = weight.data();
    product.bias = bias.data();
    product.out = reinterpret_cast<Value*>(out.mutable_data_ptr<ElementOf<Value>>());
    product.outputs = out.size(1);
    product.picture_step = out.stride(0);
    return product;
  }
};

void check_values(const char* op, const Tensor& x) {
  check_map(op, x);
  const bool bfloat16 = x.scalar_type() == ScalarType::BFloat16;
  STD_TORCH_CHECK(bfloat16 || x.scalar_type() == ScalarType::Float, op,
                  ": x must be bfloat16 or float32, got ", x.scalar_type());
  STD_TORCH_CHECK(has_pointwise_tiles(bfloat16), op, ": this processor has no kernel");
}

void check(const char* op, const Tensor& x, const std::optional<Tensor>& norm_weight,
           const std::optional<Tensor>& norm_bias, const Tensor& weight, const std::optional<Tensor>& bias,
           const std::optional<Tensor>& second_weight, const std::optional<Tensor>& second_bias, double eps) {
  check_values(op, x);
  check_projections(op, x, weight, bias, second_weight, second_bias);
  if (norm_weight) {
    check_norm(op, x, *norm_weight, norm_bias, eps);
    STD_TORCH_CHECK(x.size(1) >= kLeastNormedChannels, op, ": x must have ", kLeastNormedChannels,
                    " channels where there is a norm, got ", x.size(1));
  } else {
    STD_TORCH_CHECK(!norm_bias, op, ": norm_bias is given without norm_weight");
  }
}

// Rows of a channels-last map, whose pixels lie side by side.
void check_rows(const char* op, const char* name, const Tensor& rows, const Tensor& x, int64_t outputs) {
  check_dtype_and_device(op, name, rows, "x", x);
  const bool fits = rows.dim() == 4 && rows.size(0) == x.size(0) && rows.size(1) == outputs &&
                    rows.size(2) == x.size(2) && rows.size(3) == x.size(3);
  STD_TORCH_CHECK(fits, op, ": ", name, " must have the shape (", x.size(0), ", ", outputs, ", ", x.size(2),
                  ", ", x.size(3), "), got ", rows.dim(), " dimension(s)",
                  rows.dim() == 4 ? " of other sizes" : "");
  const bool side_by_side = (outputs <= 1 || rows.stride(1) == 1) &&
                            (rows.size(3) <= 1 || rows.stride(3) == outputs) &&
                            (rows.size(2) <= 1 || rows.stride(2) == rows.size(3) * outputs);
  STD_TORCH_CHECK(side_by_side, op, ": ", name, " must be a channels-last map, or rows of one");
}

// Of a norm, as the kernel takes it.
struct Norm {
  std::vector<float> weight, bias;
  bool subtract_mean;
  float eps;
};

template <typename Value>
std::optional<Norm> norm_of(const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                            bool subtract_mean, double eps) {
  if (!weight) return std::nullopt;
  Norm norm{weight_values<ElementOf<Value>, float>(*weight), {}, subtract_mean, static_cast<float>(eps)};
  if (bias) norm.bias = weight_values<ElementOf<Value>, float>(*bias);
  norm.bias.resize(norm.weight.size());
  return norm;
}

// One convolution or two of x, or of its norm. Something is added only to one without a norm.
template <typename Value>
void run_tiles(const Tensor& x, const std::optional<Norm>& norm, const Tensor& weight,
               const std::optional<Tensor>& bias, const std::optional<Tensor>& second_weight,
               const std::optional<Tensor>& second_bias, const std::optional<Tensor>& added, Tensor& out,
               std::optional<Tensor>& second_out) {
  // A norm reads dense pixels; products also those whose channels are some of a map's.
  const Tensor given = readable(x, true);
  const bool dense = pixel_step(given) == x.size(1);
  const Tensor map = norm && !dense ? in_layout(x, true) : given;
  PointwiseTask<Value> task{};
  task.x = values_of<Value>(map);
  task.pictures = map.size(0);
  task.pixels = map.size(2) * map.size(3);
  task.channels = map.size(1);
  task.picture_step = map.stride(0);
  task.pixel_step = pixel_step(map);
  if (norm) {
    task.norm_weight = norm->weight.data();
    task.norm_bias = norm->bias.data();
    task.subtract_mean = norm->subtract_mean;
    task.eps = norm->eps;
  }
  const Packed<Value> first(x, weight, bias);
  std::optional<Packed<Value>> second;
  task.products[0] = first.product(out);
  if (added) {
    task.products[0].added = values_of<Value>(*added);
    task.products[0].added_picture_step = added->stride(0);
  }
  if (second_weight) {
    second.emplace(x, *second_weight, second_bias);
    task.products[1] = second->product(*second_out);
  }
  task.count = second ? 2 : 1;
  torch::stable::parallel_for(0, task.pieces(), 1,
                              [&](int64_t begin, int64_t end) { pointwise_tiles_avx512(task, begin, end); });
}

// run_tiles in the dtype of x.
void run(const Tensor& x, const std::optional<Tensor>& norm_weight, const std::optional<Tensor>& norm_bias,
         const Tensor& weight, const std::optional<Tensor>& bias, const std::optional<Tensor>& second_weight,
         const std::optional<Tensor>& second_bias, bool subtract_mean, double eps,
         const std::optional<Tensor>& added, Tensor& out, std::optional<Tensor>& second_out) {
  const auto in_values = [&](auto value) {
    using Value = decltype(value);
    run_tiles<Value>(x, norm_of<Value>(norm_weight, norm_bias, subtract_mean, eps), weight, bias,
                     second_weight, second_bias, added, out, second_out);
  };
  if (x.scalar_type() == ScalarType::Float) {
    in_values(float{});
  } else {
    in_values(uint16_t{});
  }
}

}  // namespace

std::tuple<Tensor, Tensor> pointwise_tiles_cpu(Tensor x, std::optional<Tensor> norm_weight,
                                               std::optional<Tensor> norm_bias, Tensor weight,
                                               std::optional<Tensor> bias,
                                               std::optional<Tensor> second_weight,
                                               std::optional<Tensor> second_bias, bool subtract_mean,
                                               double eps) {
  check("pointwise_tiles", x, norm_weight, norm_bias, weight, bias, second_weight, second_bias, eps);
  Tensor out = empty_result(x, weight);
  std::optional<Tensor> second_out;
  if (second_weight) second_out = empty_result(x, *second_weight);
  run(x, norm_weight, norm_bias, weight, bias, second_weight, second_bias, subtract_mean, eps, std::nullopt,
      out, second_out);
  return {out, second_out ? *second_out : torch::stable::new_empty(x, {0})};
}

void pointwise_tiles_into_cpu(Tensor x, std::optional<Tensor> norm_weight, std::optional<Tensor> norm_bias,
                              Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> second_weight,
                              std::optional<Tensor> second_bias, bool subtract_mean, double eps,
                              std::optional<Tensor> added, Tensor out, std::optional<Tensor> second_out) {
  constexpr const char* kOp = "pointwise_tiles_into";
  check(kOp, x, norm_weight, norm_bias, weight, bias, second_weight, second_bias, eps);
  STD_TORCH_CHECK(!added || (!norm_weight && !second_weight), kOp,
                  ": added is for one convolution without a norm");
  STD_TORCH_CHECK(second_weight.has_value() == second_out.has_value(), kOp,
                  ": second_weight and second_out go together");
  check_rows(kOp, "out", out, x, weight.size(0));
  if (added) check_rows(kOp, "added", *added, x, weight.size(0));
  if (second_out) check_rows(kOp, "second_out", *second_out, x, second_weight->size(0));
  run(x, norm_weight, norm_bias, weight, bias, second_weight, second_bias, subtract_mean, eps, added, out,
      second_out);
}

}  // namespace aicr
