// Which instructions of 512 bits are there, and wanted. No torch here.
#pragma once

#include <cstdlib>
#include <string>

namespace aicr {

// What keeps torch's own kernels off AVX-512 keeps those off it that are written for it (*_avx512.cpp): their
// sums in another order may end in another last bit. Loops that the loader picks a version of (vectors.hpp)
// know nothing of it. A value that torch does not know limits neither.
inline bool has_avx512() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool supported = [] {
    __builtin_cpu_init();
    const char* given = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string limit = given == nullptr ? "" : given;
    return limit != "avx2" && limit != "default" && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  }();
  return supported;
#else
  return false;
#endif
}

// Products of pairs of bfloat16, added up in float32, and rounding to bfloat16.
inline bool has_avx512_bfloat16() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool supported = has_avx512() && __builtin_cpu_supports("avx512bf16");
  return supported;
#else
  return false;
#endif
}

}  // namespace aicr
