// What this build was made with, and what the processor at hand offers. Read by `aicr doctor`.
#include "build_info.hpp"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/module.hpp"

namespace aicr {
namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = AICR_VERSION;
  info["build_type"] = AICR_BUILD_TYPE;
  info["sanitizers"] = AICR_SANITIZERS;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["torch_headers"] = AICR_TORCH_VERSION;
  info["cuda_built"] = std::string(AICR_CUDA_BUILT) == "ON";
  info["cuda_version"] = AICR_CUDA_VERSION;
  info["cuda_archs"] = AICR_CUDA_ARCHS;
  return info;
}

// The instruction sets that a kernel of this package could choose by, in the order they appeared.
std::vector<std::string> cpu_features() {
  std::vector<std::string> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
#define AICR_ADD_IF_SUPPORTED(name) \
  if (__builtin_cpu_supports(name)) found.emplace_back(name)
  AICR_ADD_IF_SUPPORTED("sse4.2");
  AICR_ADD_IF_SUPPORTED("avx");
  AICR_ADD_IF_SUPPORTED("avx2");
  AICR_ADD_IF_SUPPORTED("bmi2");
  AICR_ADD_IF_SUPPORTED("fma");
  AICR_ADD_IF_SUPPORTED("avx512f");
  AICR_ADD_IF_SUPPORTED("avx512bw");
  AICR_ADD_IF_SUPPORTED("avx512vl");
  AICR_ADD_IF_SUPPORTED("avx512vbmi");
  AICR_ADD_IF_SUPPORTED("avx512vbmi2");
  AICR_ADD_IF_SUPPORTED("avx512vnni");
  AICR_ADD_IF_SUPPORTED("avx512bf16");
#undef AICR_ADD_IF_SUPPORTED
#endif
  return found;
}

}  // namespace

void bind_build_info(pybind11::module_& module) {
  module.def("build_info", &build_info,
             "Version, compiler, torch headers and CUDA architectures of this build.");
  module.def("cpu_features", &cpu_features, "Instruction sets of this processor, oldest first.");
}

}  // namespace aicr
