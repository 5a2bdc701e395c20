// Vectors of floats for loops that compilers do not turn into good vector code by themselves: written once,
// for any length, and compiled for the length of each instruction set.
#pragma once

#include <cstdint>
#include <utility>

#include <torch/headeronly/util/BFloat16.h>

#include "cpu/vector_clones.hpp"

namespace aicr {

template <int kBytes>
struct Vectors {
  static constexpr int64_t kLanes = kBytes / 4;
  typedef float Float __attribute__((vector_size(kBytes)));
  typedef int32_t Int __attribute__((vector_size(kBytes)));
  typedef float FloatAnywhere __attribute__((vector_size(kBytes), aligned(4), may_alias));
  typedef int32_t IntAnywhere __attribute__((vector_size(kBytes), aligned(2), may_alias));

  // Those lanes of left and right, counted through both.
  template <int... kLane>
  static AICR_INLINE Float shuffled(const Float& left, const Float& right) {
#if __has_builtin(__builtin_shufflevector)  // g++ 12
    return __builtin_shufflevector(left, right, kLane...);
#else
    return Float{(kLane < kLanes ? left[kLane % kLanes] : right[kLane % kLanes])...};
#endif
  }
};

// Loads a vector once, where compilers would read it from memory again for every use: vectors that cross the
// lines of the cache cost two loads each time.
template <typename V>
AICR_INLINE void in_register(V& vector) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  asm("" : "+v"(vector));
#else
  (void)vector;
#endif
}

// The first address from `memory` on that vectors of so many bytes may be kept at.
template <int kBytes>
float* aligned_to(float* memory) {
  const uintptr_t beyond = reinterpret_cast<uintptr_t>(memory) % kBytes;
  return memory + (beyond == 0 ? 0 : (kBytes - beyond) / sizeof(float));
}

// Two vectors: the values from `at` on, as many as both hold. Those of a 16-bit type fill one register: the
// even ones go to the first vector, the odd ones to the second. kRounds: the processor rounds to bfloat16
// itself (avx512.hpp), which makes zeros of subnormal numbers; for vectors of 64 bytes.
template <int kBytes, bool kRounds = false>
struct Pair {
  using V = Vectors<kBytes>;
  static constexpr int64_t kValues = 2 * V::kLanes;
  typename V::Float first, second;

  AICR_INLINE void load(const float* at) {
    first = *reinterpret_cast<const typename V::FloatAnywhere*>(at);
    second = *reinterpret_cast<const typename V::FloatAnywhere*>(at + V::kLanes);
    in_register(first);
    in_register(second);
  }
  AICR_INLINE void load(const torch::headeronly::BFloat16* at) {
    typename V::Int both = *reinterpret_cast<const typename V::IntAnywhere*>(at);
    in_register(both);
    first = reinterpret_cast<typename V::Float>(both << 16);
    second = reinterpret_cast<typename V::Float>(both & kHigh);
  }
  AICR_INLINE void store(float* at) const {
    *reinterpret_cast<typename V::FloatAnywhere*>(at) = first;
    *reinterpret_cast<typename V::FloatAnywhere*>(at + V::kLanes) = second;
  }
  AICR_INLINE void store(torch::headeronly::BFloat16* at) const {
    if constexpr (kRounds) {
      store_rounded(at, std::make_integer_sequence<int, kValues>());
      return;
    }
    typename V::Int low, high;
    round(first, low);
    round(second, high);
    typedef uint32_t Unsigned __attribute__((vector_size(kBytes)));
    low = reinterpret_cast<typename V::Int>(reinterpret_cast<Unsigned>(low) >> 16);
    *reinterpret_cast<typename V::IntAnywhere*>(at) = low | (high & kHigh);
  }

  // Where load() puts value i of those from `at` on, were both vectors one array.
  static constexpr int64_t place(const float*, int64_t i) { return i; }
  static constexpr int64_t place(const torch::headeronly::BFloat16*, int64_t i) {
    return i % 2 * V::kLanes + i / 2;
  }

 private:
  template <int... kPlace>
  AICR_INLINE void store_rounded(torch::headeronly::BFloat16* at,
                                 std::integer_sequence<int, kPlace...>) const {
    typedef uint16_t Short __attribute__((vector_size(kBytes)));
    typedef uint16_t ShortAnywhere __attribute__((vector_size(kBytes), aligned(2), may_alias));
    Short halves;  // the values of `first` before those of `second`
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(halves) : "v"(first), "v"(second));
    *reinterpret_cast<ShortAnywhere*>(at) = Short{halves[kPlace % 2 * V::kLanes + kPlace / 2]...};
  }

  static constexpr int32_t kHigh = -65536;  // the half of 32 bits that is a bfloat16

  // bits >> 16 is x rounded to the nearest bfloat16, of two as near to the even one.
  static AICR_INLINE void round(const typename V::Float& x, typename V::Int& bits) {
    const typename V::Int exact = reinterpret_cast<typename V::Int>(x);
    bits = exact + 0x7fff + ((exact >> 16) & 1);
    bits = x == x ? bits : typename V::Int{} + 0x7fc00000;  // not-a-number stays one
  }
};

}  // namespace aicr

// Defines a function, with SIGNATURE, once per instruction set; the rest is its body, in which kBytes is the
// length of vectors. The dynamic loader picks one, as with AICR_VECTOR_CLONES.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define AICR_FOR_EACH_VECTOR(SIGNATURE, ...)            \
  __attribute__((target("arch=x86-64-v4"))) SIGNATURE { \
    constexpr int kBytes = 64;                          \
    __VA_ARGS__                                         \
  }                                                     \
  __attribute__((target("arch=x86-64-v3"))) SIGNATURE { \
    constexpr int kBytes = 32;                          \
    __VA_ARGS__                                         \
  }                                                     \
  __attribute__((target("default"))) SIGNATURE {        \
    constexpr int kBytes = 16;                          \
    __VA_ARGS__                                         \
  }
#else
#define AICR_FOR_EACH_VECTOR(SIGNATURE, ...) \
  SIGNATURE {                                \
    constexpr int kBytes = 16;               \
    __VA_ARGS__                              \
  }
#endif
