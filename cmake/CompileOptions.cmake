# What every native target is compiled with.
add_library(aicr_options INTERFACE)
target_include_directories(aicr_options INTERFACE "${CMAKE_CURRENT_SOURCE_DIR}/csrc")

# Without the two -fno options g++ vectorises neither clamps nor square roots. Contraction into FMA stays on: floats
# may differ in the last bit between instruction sets, because nothing that decides how a stream decodes is a float.
# -fopenmp-simd: sums marked "omp simd reduction" may be vectorised; it brings no threads and no library.
target_compile_options(
  aicr_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-fno-trapping-math;-fno-math-errno;-fopenmp-simd>")

# Symbols of static libraries stay inside.
target_link_options(aicr_options INTERFACE "$<$<PLATFORM_ID:Linux>:-Wl,--exclude-libs,ALL>")

if(AICR_SANITIZE)
  target_compile_options(aicr_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${AICR_SANITIZE};-fno-omit-frame-pointer;-g>")
  target_link_options(aicr_options INTERFACE -fsanitize=${AICR_SANITIZE})
endif()
