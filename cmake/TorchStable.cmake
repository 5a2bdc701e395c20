# Target torch_stable: headers of the installed torch and libtorch_cpu, for libraries on the stable ABI.
#
# find_package(Torch) is avoided on purpose: with a CUDA build of torch it demands a complete CUDA toolkit.
# pip's isolated build environment holds no torch, so the interpreter is asked in isolated mode (-I), which ignores
# the PYTHONPATH that pip sets and sees the environment the package is being installed into.
set(AICR_TORCH_DIR "" CACHE PATH "Folder of the installed torch package; empty: ask the interpreter")
set(_torch_dir "${AICR_TORCH_DIR}")
foreach(_mode IN ITEMS -I -B)
  if(NOT _torch_dir)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" ${_mode} -c
              "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '', end='')"
      OUTPUT_VARIABLE _torch_dir)
  endif()
endforeach()

set(_version_header "${_torch_dir}/include/torch/headeronly/version.h")
if(NOT EXISTS "${_torch_dir}/include/torch/csrc/stable/library.h" OR NOT EXISTS "${_version_header}")
  message(FATAL_ERROR
    "aicr_ext needs torch >= 2.10 to be installed before it is built, and found none for ${Python_EXECUTABLE} "
    "(looked in '${_torch_dir}'). Install torch first, or name its folder in AICR_TORCH_DIR.")
endif()
file(STRINGS "${_version_header}" _version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" AICR_TORCH_VERSION "${_version_lines}")
if(AICR_TORCH_VERSION VERSION_LESS 2.10)
  message(FATAL_ERROR "aicr_ext needs torch >= 2.10; ${_torch_dir} is ${AICR_TORCH_VERSION}")
endif()
message(STATUS "aicr_ext: headers of torch ${AICR_TORCH_VERSION} from ${_torch_dir}")

add_library(torch_stable INTERFACE)
target_include_directories(torch_stable SYSTEM INTERFACE "${_torch_dir}/include")
# The oldest torch the binary must run on. Without it a build against newer headers needs symbols 2.10 lacks.
target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=0x020a000000000000ULL)
# libtorch_cpu exists in every build of torch; linking it by path records only its name.
target_link_libraries(torch_stable INTERFACE "${_torch_dir}/lib/libtorch_cpu.so")
if(NOT AICR_SANITIZE)
  target_link_options(torch_stable INTERFACE -Wl,-z,defs)
endif()
