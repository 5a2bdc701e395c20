// Which instructions of 512 bits are there, and wanted. No torch here.
#pragma once

#include <cstdlib>
#include <string>

namespace aicr {

// What keeps torch's own kernels off AVX-512 keeps those of this library off it, too: sums in another order
// may end in another last bit.
inline bool has_avx512() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool supported = [] {
    __builtin_cpu_init();
    const char* limit = std::getenv("ATEN_CPU_CAPABILITY");
    return (limit == nullptr || std::string(limit) == "avx512") && __builtin_cpu_supports("avx512f") &&
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
