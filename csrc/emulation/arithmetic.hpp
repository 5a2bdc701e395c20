// The built-in functions of CUDA that concern one thread. The fast approximations are exact here; a kernel
// must not hang on their last bits. atomicAdd takes integers only: sums of floats would depend on the order
// of the threads.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define AICR_MIN_MAX(type)          \
  inline type min(type a, type b) { \
    return b < a ? b : a;           \
  }                                 \
  inline type max(type a, type b) { \
    return a < b ? b : a;           \
  }
AICR_MIN_MAX(int)
AICR_MIN_MAX(unsigned)
AICR_MIN_MAX(long)
AICR_MIN_MAX(unsigned long)
AICR_MIN_MAX(long long)
AICR_MIN_MAX(unsigned long long)
#undef AICR_MIN_MAX

// Unlike comparisons these prefer a number to a NaN.
inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) {
  return fmaxf(a, b);
}

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
  return __builtin_popcountll(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
  return __builtin_ffsll(x);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((uint64_t{a} * b) >> 32);
}
inline int __mulhi(int a, int b) {
  return static_cast<int>((int64_t{a} * b) >> 32);
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((uint64_t{high} << 32 | low) >> (shift & 31));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((uint64_t{high} << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = selector >> (4 * i);
    const auto byte = static_cast<uint8_t>(bytes >> (8 * (choice & 7)));
    result |= ((choice & 8) != 0 ? (byte >> 7) * 255u : byte) << (8 * i);
  }
  return result;
}
inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  }
  return sum;
}

#define AICR_BITS_AS(name, to, from) \
  inline to name(from x) {           \
    to bits;                         \
    memcpy(&bits, &x, sizeof bits);  \
    return bits;                     \
  }
AICR_BITS_AS(__float_as_int, int, float)
AICR_BITS_AS(__float_as_uint, unsigned, float)
AICR_BITS_AS(__int_as_float, float, int)
AICR_BITS_AS(__uint_as_float, float, unsigned)
#undef AICR_BITS_AS

inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline float __frsqrt_rn(float x) {
  return static_cast<float>(1.0 / sqrt(static_cast<double>(x)));
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __fmaf_rn(float x, float y, float z) {
  return fmaf(x, y, z);
}
// glibc declares functions of the names __expf and __logf.
inline float aicr_emulated_expf(float x) {
  return expf(x);
}
inline float aicr_emulated_logf(float x) {
  return logf(x);
}
#define __expf aicr_emulated_expf
#define __logf aicr_emulated_logf
inline float __saturatef(float x) {
  return x > 0.0f ? fminf(x, 1.0f) : 0.0f;
}
inline int __float2int_rn(float x) {
  return static_cast<int>(nearbyintf(x));
}

template <typename T>
T __ldg(const T* at) {
  return *at;
}

// Blocks and threads take turns, so nothing comes between reading and writing.
template <typename T, typename Change>
T aicr_emulated_atomic(T* at, Change change) {
  const T before = *at;
  *at = change(before);
  return before;
}
#define AICR_ATOMIC(name, type, expression)                                                                \
  inline type name(type* at, type value) {                                                                 \
    return aicr_emulated_atomic(at,                                                                        \
                                [&]([[maybe_unused]] type old) { return static_cast<type>(expression); }); \
  }
#define AICR_ATOMICS(type)                      \
  AICR_ATOMIC(atomicMin, type, min(old, value)) \
  AICR_ATOMIC(atomicMax, type, max(old, value)) \
  AICR_ATOMIC(atomicOr, type, old | value)      \
  AICR_ATOMIC(atomicAnd, type, old& value)      \
  AICR_ATOMIC(atomicExch, type, value)
AICR_ATOMICS(int)
AICR_ATOMICS(unsigned)
AICR_ATOMICS(unsigned long long)
AICR_ATOMIC(atomicAdd, unsigned, old + value)
AICR_ATOMIC(atomicAdd, unsigned long long, old + value)
inline int atomicAdd(int* at, int value) {
  return aicr_emulated_atomic(at, [&](int old) { return static_cast<int>(unsigned(old) + unsigned(value)); });
}
template <typename T>
T atomicCAS(T* at, T expected, T value) {
  return aicr_emulated_atomic(at, [&](T old) { return old == expected ? value : old; });
}
#undef AICR_ATOMICS
#undef AICR_ATOMIC

inline void __threadfence() {}
inline void __threadfence_block() {}
