// The types of feature maps that kernels exist for.
#pragma once

namespace aicr {

enum class FeatureType { kFloat32, kBFloat16, kFloat16 };

}  // namespace aicr
