// The parts of the Python module _C; each is defined in the source file of its name.
#pragma once

#include <pybind11/pybind11.h>

namespace aicr {

void bind_build_info(pybind11::module_& module);
void bind_coder(pybind11::module_& module);

}  // namespace aicr
