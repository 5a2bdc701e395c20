// Where operators are registered: "aicr_ext", or for kernels of CUDA that run on the host (docs/cuda.md), by
// the same names with the same schemas, "aicr_ext_emulated".
#pragma once

#include <torch/csrc/stable/library.h>

#if defined(AICR_EMULATION)
#define AICR_NAMESPACE aicr_ext_emulated
#define AICR_CUDA_KEY CPU
#else
#define AICR_NAMESPACE aicr_ext
#define AICR_CUDA_KEY CUDA
#endif

// Through a second macro, because torch's pastes the name into others.
#define AICR_SCHEMAS_IN(name, library) STABLE_TORCH_LIBRARY(name, library)
#define AICR_SCHEMAS(library) AICR_SCHEMAS_IN(AICR_NAMESPACE, library)
#define AICR_KERNELS_IN(name, key, library) STABLE_TORCH_LIBRARY_IMPL(name, key, library)
#define AICR_CUDA_KERNELS(library) AICR_KERNELS_IN(AICR_NAMESPACE, AICR_CUDA_KEY, library)
