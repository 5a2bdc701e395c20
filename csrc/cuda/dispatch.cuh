// From the type of feature maps, known at run time, to the kernels of that type.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/feature_type.cuh"
#include "cuda/numbers.cuh"

namespace aicr {

template <typename T>
struct TypeTag {
  using Type = T;
};

// What `launch` gives for the TypeTag of the type that the maps have in memory.
template <typename Launch>
cudaError_t dispatch_type(FeatureType type, const Launch& launch) {
  switch (type) {
    case FeatureType::kFloat32:
      return launch(TypeTag<float>{});
    case FeatureType::kBFloat16:
      return launch(TypeTag<__nv_bfloat16>{});
    case FeatureType::kFloat16:
      return launch(TypeTag<__half>{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace aicr
