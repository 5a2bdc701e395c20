// Stands in for CUDA's header: float16 as storage, with conversions that round to nearest, ties to even.
// There is no arithmetic in it on purpose: kernels compute in float32.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulation/vectors.hpp"

struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline float __half2float(__half x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu;
  uint32_t bits;
  if (rest >= 0x7c00u) {  // infinity, NaN
    bits = 0x7f800000u | (rest & 0x3ffu) << 13;
  } else if (rest >= 0x400u) {
    bits = (rest << 13) + (112u << 23);
  } else {  // subnormal: a multiple of 2^-24
    const float value = static_cast<float>(rest) * 0x1p-24f;
    memcpy(&bits, &value, sizeof bits);
  }
  bits |= sign;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline __half __float2half_rn(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  uint32_t result;
  if (rest > 0x7f800000u) {  // NaN
    return {0x7fff};
  } else if (rest >= 0x477ff000u) {  // from 65520 on: infinity
    result = 0x7c00u;
  } else if (rest >= 0x38800000u) {
    result = (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
  } else {  // subnormal; the largest may round up to the smallest that is not
    result = static_cast<uint32_t>(nearbyintf(fabsf(x) * 0x1p24f));
  }
  return {static_cast<uint16_t>(sign | result)};
}
inline __half __float2half(float x) {
  return __float2half_rn(x);
}
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}
inline __half2 __float22half2_rn(float2 x) {
  return __floats2half2_rn(x.x, x.y);
}
inline float2 __half22float2(__half2 x) {
  return {__half2float(x.x), __half2float(x.y)};
}
inline float __low2float(__half2 x) {
  return __half2float(x.x);
}
inline float __high2float(__half2 x) {
  return __half2float(x.y);
}
inline unsigned short __half_as_ushort(__half x) {
  return x.bits;
}
inline __half __ushort_as_half(unsigned short bits) {
  return {bits};
}
