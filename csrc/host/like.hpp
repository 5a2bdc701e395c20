// What operators ask of an argument that goes with another one. `op` is the name in messages, `name` the
// argument, `as` the one it is compared with.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace aicr {

inline void check_dtype_and_device(const char* op, const char* name, const torch::stable::Tensor& x,
                                   const char* as, const torch::stable::Tensor& other) {
  STD_TORCH_CHECK(x.scalar_type() == other.scalar_type(), op, ": ", name, " must be of the dtype of ", as,
                  ", ", other.scalar_type(), ", got ", x.scalar_type());
  STD_TORCH_CHECK(x.device() == other.device(), op, ": ", name, " must be on the device of ", as);
}

// `other` has four dimensions.
inline void check_like(const char* op, const char* name, const torch::stable::Tensor& x, const char* as,
                       const torch::stable::Tensor& other) {
  bool same = x.dim() == 4;
  for (int axis = 0; same && axis < 4; ++axis) same = x.size(axis) == other.size(axis);
  STD_TORCH_CHECK(same, op, ": ", name, " must have the shape of ", as);
  check_dtype_and_device(op, name, x, as, other);
}

inline void check_weight_dtype_and_device(const char* op, const char* name,
                                          const torch::stable::Tensor& weight, const char* as,
                                          const torch::stable::Tensor& maps) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(weight.scalar_type() == maps.scalar_type() || weight.scalar_type() == ScalarType::Float, op,
                  ": ", name, " must be float32 or of the dtype of ", as, ", got ", weight.scalar_type(),
                  " with ", as, " ", maps.scalar_type());
  STD_TORCH_CHECK(weight.device() == maps.device(), op, ": ", name, " must be on the device of ", as);
}

// A weight of one dimension.
inline void check_vector(const char* op, const char* name, const torch::stable::Tensor& vector, int64_t size,
                         const char* as, const torch::stable::Tensor& maps) {
  STD_TORCH_CHECK(vector.dim() == 1 && vector.size(0) == size, op, ": ", name, " must have the shape (", size,
                  ",), got ", vector.dim(), " dimension(s)", vector.dim() == 1 ? " of another size" : "");
  check_weight_dtype_and_device(op, name, vector, as, maps);
}

}  // namespace aicr
