// GELU(x) = x * Phi(x) with Phi the normal distribution function (the exact form, not the tanh one).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cpu/same_bits.hpp"

namespace aicr {

// The lesser of two floats that are not negative, or of two vectors of them. Compared as integers, because
// g++ 12 turns clamps of floats into branches, and these into masks; not-a-number counts as more than
// infinity.
inline __attribute__((always_inline)) float lesser(float a, float b) {
  return same_bits<float>(std::min(same_bits<int32_t>(a), same_bits<int32_t>(b)));
}
template <typename Int, typename Float>
inline __attribute__((always_inline)) Float lesser(Float a, Float b) {
  if constexpr (std::is_same_v<Int, int32_t>) {
    return lesser(a, b);
  } else {
    const Int left = same_bits<Int>(a), right = same_bits<Int>(b);
    return same_bits<Float>(left < right ? left : right);
  }
}

// Phi(x) - 1/2 = x P(x^2) / Q(x^2), fitted to |x| <= 5.7 with a relative error below 3e-8 and growing,
// towards the end, just past 1/2: clamped there, Phi is exactly 0 or 1 beyond about 5.69. No branch, no
// table, no call, so that loops over it become vector code. The result for not-a-number is a number, which
// its callers combine with x. Float, Int: float and int32_t, or vectors of them.
template <typename Int, typename Float>
inline __attribute__((always_inline)) Float normal_cdf_of(const Float& x) {
  const Int bits = same_bits<Int>(x), sign = bits & INT32_MIN;
  const Float t = lesser<Int, Float>(same_bits<Float>(bits ^ sign), Float{} + 5.7f), z = t * t;
  Float p = z * 2.169775470406421e-08f + 6.2895014707464725e-06f;
  p = p * z + 0.00017376600590068847f;
  p = p * z + 0.004706617444753647f;
  p = p * z + 0.034438859671354294f;
  p = p * z + 0.3989422619342804f;
  Float q = z * 1.162035005108919e-06f + 7.471210847143084e-05f;
  q = q * z + 0.0019132152665406466f;
  q = q * z + 0.028964117169380188f;
  q = q * z + 0.252991646528244f;
  q = q * z + 1.0f;
  const Float clamped = lesser<Int, Float>(t * p / q, Float{} + 0.5f);
  return same_bits<Float>(same_bits<Int>(clamped) | sign) + 0.5f;
}

inline __attribute__((always_inline)) float normal_cdf(float x) {
  return normal_cdf_of<int32_t>(x);
}

inline double normal_cdf(double x) {
  return 0.5 * std::erfc(-x * 0.70710678118654752440);
}

// exp(-x^2 / 2) / sqrt(2 pi): two to the power n + f, |f| <= 1/2, the latter by a polynomial. The large
// number rounds to whole n; below 2^-126 the result is 0. The absolute error is below 5e-8.
inline __attribute__((always_inline)) float normal_pdf(float x) {
  const float power = std::max(x * x * -0.72134752044448170368f, -127.0f);
  const float n = (power + 12582912.0f) - 12582912.0f, f = power - n;
  float p = 0.0001546973198244552f;
  p = p * f + 0.0013400432165251623f;
  p = p * f + 0.00961802560294165f;
  p = p * f + 0.05550327214209535f;
  p = p * f + 0.24022651213595259f;
  p = p * f + 0.69314720671062f;
  p = p * f + 1.0f;
  return 0.39894228040143267794f * p * same_bits<float>((static_cast<int32_t>(n) + 127) << 23);
}

inline double normal_pdf(double x) {
  return 0.39894228040143267794 * std::exp(-0.5 * x * x);
}

template <typename Acc>
inline __attribute__((always_inline)) Acc gelu(Acc x) {
  return x * normal_cdf(x);
}

// d GELU / dx = Phi(x) + x phi(x). At an infinite x the product would be 0 * infinity: x is clamped for it to
// where phi is 0.
template <typename Acc>
inline __attribute__((always_inline)) Acc gelu_slope(Acc x) {
  return normal_cdf(x) + std::min(std::max(x, Acc(-40)), Acc(40)) * normal_pdf(x);
}

}  // namespace aicr
