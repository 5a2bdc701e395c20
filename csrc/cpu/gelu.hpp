// GELU(x) = x * Phi(x) with Phi the normal distribution function (the exact form, not the tanh one).
#pragma once

#include <algorithm>
#include <cmath>

namespace aicr {

// Phi(x) - 1/2 = x P(x^2) / Q(x^2), fitted to |x| <= 5.7 with a relative error below 3e-8 and growing,
// towards the end, just past 1/2: clamped there, Phi is exactly 0 or 1 beyond about 5.69. No branch, no
// table, no call, so that loops over it become vector code. Not-a-number passes through the clamps.
inline __attribute__((always_inline)) float gelu(float x) {
  const float t = std::min(std::max(x, -5.7f), 5.7f), z = t * t;
  float p = 2.169775470406421e-08f;
  p = p * z + 6.2895014707464725e-06f;
  p = p * z + 0.00017376600590068847f;
  p = p * z + 0.004706617444753647f;
  p = p * z + 0.034438859671354294f;
  p = p * z + 0.3989422619342804f;
  float q = 1.162035005108919e-06f;
  q = q * z + 7.471210847143084e-05f;
  q = q * z + 0.0019132152665406466f;
  q = q * z + 0.028964117169380188f;
  q = q * z + 0.252991646528244f;
  q = q * z + 1.0f;
  const float centred = std::min(std::max(t * p / q, -0.5f), 0.5f);
  return x * (0.5f + centred);
}

inline double gelu(double x) {
  return 0.5 * x * std::erfc(-x * 0.70710678118654752440);
}

}  // namespace aicr
