// Whether the instructions of AVX-512 for bfloat16 are there, and wanted. No torch here.
#pragma once

#include <cstdlib>
#include <string>

namespace aicr {

// What keeps torch's own kernels off AVX-512 keeps these instructions away, too: sums in another order may
// end in another last bit.
inline bool has_avx512_bfloat16() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool supported = [] {
    __builtin_cpu_init();
    const char* limit = std::getenv("ATEN_CPU_CAPABILITY");
    return (limit == nullptr || std::string(limit) == "avx512") && __builtin_cpu_supports("avx512bf16") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }();
  return supported;
#else
  return false;
#endif
}

}  // namespace aicr
