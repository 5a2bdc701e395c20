// integer_linear without vector instructions, and the choice between the instruction sets.
#include "cpu/integer_linear_kernel.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>

namespace aicr {
namespace {

constexpr int64_t kBlock = 64;  // sums of so many outputs stay in the first cache

enum class Isa { kScalar, kAvx2, kAvx512 };

// A name that AICR_ISA does not allow is an error of the coder, which reads it too.
Isa choose_isa() {
#if defined(__x86_64__)
  const char* wanted = std::getenv("AICR_ISA");
  const std::string name = wanted != nullptr ? wanted : "";
  __builtin_cpu_init();
  if (name != "scalar" && __builtin_cpu_supports("avx2")) {
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return avx512 && name != "avx2" ? Isa::kAvx512 : Isa::kAvx2;
  }
#endif
  return Isa::kScalar;
}

}  // namespace

void integer_linear_scalar(const IntegerLinear& task, int64_t first, int64_t last, int64_t first_output) {
  for (int64_t row = first; row < last; ++row) {
    const int16_t* x = task.x + row * task.inputs;
    for (int64_t begin = first_output; begin < task.outputs; begin += kBlock) {
      const int64_t count = std::min(kBlock, task.outputs - begin);
      int32_t sum[kBlock];
      std::copy_n(task.bias + begin, count, sum);
      for (int64_t k = 0; k < task.inputs / 2; ++k) {
        const int16_t* weight = task.weight + (k * task.outputs + begin) * 2;
        const int32_t a = x[2 * k], b = x[2 * k + 1];
        for (int64_t o = 0; o < count; ++o) sum[o] += a * weight[2 * o] + b * weight[2 * o + 1];
      }
      for (int64_t o = 0; o < count; ++o) {
        const int64_t output = begin + o;
        int32_t value = saturated(shifted(sum[o], task.shift[output]));
        if (value < 0) value = shifted(value * task.slope[output], 15);
        if (task.residual != nullptr) {
          const int32_t residual = task.residual[row * task.outputs + output];
          value = saturated(value + shifted(residual, task.residual_shift[output]));
        }
        task.out[row * task.outputs + output] = static_cast<int16_t>(value);
      }
    }
  }
}

void integer_linear_run(const IntegerLinear& task, int64_t first, int64_t last) {
  static const Isa isa = choose_isa();
  int64_t done = 0;
  if (isa == Isa::kAvx512) done = integer_linear_avx512(task, first, last);
  if (isa == Isa::kAvx2) done = integer_linear_avx2(task, first, last);
  if (done < task.outputs) integer_linear_scalar(task, first, last, done);
}

}  // namespace aicr
