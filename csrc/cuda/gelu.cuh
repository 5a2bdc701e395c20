// GELU(x) = x * Phi(x) with Phi the normal distribution function (the exact form, not the tanh one).
#pragma once

#include <cuda_runtime.h>

namespace aicr {

__device__ __forceinline__ float normal_cdf(float x) {
  return 0.5f * (1.0f + erff(x * 0.70710678118654752f));
}

__device__ __forceinline__ float gelu(float x) {
  return x * normal_cdf(x);
}

struct GeluWithSlope {
  float value, slope;
};

// GELU(x) and d GELU / dx = Phi(x) + x phi(x), with Phi formed once. At an infinite x the product would be
// infinity * 0: x is clamped for it to where phi is 0. Written so that not-a-number stays.
__device__ __forceinline__ GeluWithSlope gelu_with_slope(float x) {
  const float cdf = normal_cdf(x), clamped = x < -40.0f ? -40.0f : x > 40.0f ? 40.0f : x;
  return {x * cdf, cdf + clamped * (0.39894228040143268f * expf(-0.5f * clamped * clamped))};
}

}  // namespace aicr
