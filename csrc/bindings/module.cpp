#include "bindings/module.hpp"

PYBIND11_MODULE(_C, module) {
  module.doc() = "Native parts of aicr_ext that need no torch: the entropy coder and facts about the build.";
  aicr::bind_build_info(module);
  aicr::bind_coder(module);
}
