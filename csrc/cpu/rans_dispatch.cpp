#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "common/rans_kernels.hpp"
#include "common/rans_scalar.hpp"

namespace aicr {
namespace {

// Slowest first.
std::vector<const RansKernels*> supported() {
  std::vector<const RansKernels*> found = {&kScalarKernels};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  if (avx2) found.push_back(&kAvx2Kernels);
  // The byte permutations of VBMI came after the first processors with AVX-512; those use AVX2.
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2")) {
    found.push_back(&kAvx512Kernels);
  }
#endif
  return found;
}

const RansKernels& find(const std::string& name, const char* where) {
  std::string names;
  for (const RansKernels* kernels : supported()) {
    if (name == kernels->name) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw std::invalid_argument(std::string(where) +
                              " must be one of the instruction sets this processor has (" + names +
                              "), got '" + name + "'");
}

std::atomic<const RansKernels*> selected{nullptr};

}  // namespace

const RansKernels kScalarKernels = {
    "scalar",    decode_scalar<kWideLanes>, decode_scalar<kNarrowLanes>,
    join_scalar, encode_scalar<kWideLanes>, encode_scalar<kNarrowLanes>,
    nullptr,
};

std::vector<std::string> available_kernels() {
  std::vector<std::string> names;
  for (const RansKernels* kernels : supported()) names.emplace_back(kernels->name);
  return names;
}

const RansKernels& active_kernels() {
  if (const RansKernels* kernels = selected.load()) return *kernels;
  const char* wanted = std::getenv("AICR_ISA");
  const RansKernels& kernels =
      wanted != nullptr && *wanted != '\0' ? find(wanted, "AICR_ISA") : *supported().back();
  selected.store(&kernels);
  return kernels;
}

void select_kernels(const std::string& name) {
  selected.store(name.empty() ? nullptr : &find(name, "isa"));
}

}  // namespace aicr
