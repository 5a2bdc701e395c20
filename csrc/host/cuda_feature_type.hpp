// Feature types as the CUDA kernels know them.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "cuda/feature_type.cuh"

namespace aicr {

// `op` and `name` are the operator and the argument in the message.
inline FeatureType cuda_feature_type(const char* op, const char* name, const torch::stable::Tensor& x) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return FeatureType::kFloat32;
    case ScalarType::BFloat16:
      return FeatureType::kBFloat16;
    case ScalarType::Half:
      return FeatureType::kFloat16;
    default:
      STD_TORCH_CHECK(false, op, ": ", name, " must be float32, bfloat16 or float16 on CUDA, got ",
                      x.scalar_type());
  }
}

}  // namespace aicr
