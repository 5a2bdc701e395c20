// The short vectors of CUDA, aligned as it aligns them: an access to one that is not is seen by a sanitizer.
#pragma once

#define AICR_VECTORS(type, name)                                     \
  struct alignas(2 * sizeof(type)) name##2 {                         \
    type x, y;                                                       \
  };                                                                 \
  struct name##3 {                                                   \
    type x, y, z;                                                    \
  };                                                                 \
  struct alignas(sizeof(type) < 8 ? 4 * sizeof(type) : 16) name##4 { \
    type x, y, z, w;                                                 \
  };                                                                 \
  inline name##2 make_##name##2(type x, type y) {                    \
    return {x, y};                                                   \
  }                                                                  \
  inline name##4 make_##name##4(type x, type y, type z, type w) {    \
    return {x, y, z, w};                                             \
  }

AICR_VECTORS(signed char, char)
AICR_VECTORS(unsigned char, uchar)
AICR_VECTORS(short, short)
AICR_VECTORS(unsigned short, ushort)
AICR_VECTORS(int, int)
AICR_VECTORS(float, float)
AICR_VECTORS(double, double)
AICR_VECTORS(long long, longlong)
#undef AICR_VECTORS

// uint3 is in cuda_runtime_api.h.
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
