// The CUDA device and stream that PyTorch works on at the moment, and what a launch on them came to. Where
// kernels run on the host (docs/cuda.md) there are neither device nor stream.
#pragma once

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdint>

#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/Exception.h>

namespace aicr {

#if defined(AICR_EMULATION)

struct CudaDeviceGuard {
  explicit CudaDeviceGuard(int32_t) {}
};

inline cudaStream_t current_cuda_stream(int32_t) {
  return nullptr;
}

#else

using CudaDeviceGuard = torch::stable::accelerator::DeviceGuard;

// The function is looked up in the libtorch_cuda that is loaded, instead of linked: this library then loads
// beside a torch without CUDA too. (Stream::nativeHandle() of the stable ABI would do, but exists only from
// torch 2.13 on.)
inline cudaStream_t current_cuda_stream(int32_t device) {
  using GetStream = int32_t (*)(int32_t device, void** stream);  // returns 0 on success
  static const GetStream get_stream = [] {
    void* torch_cuda = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    return torch_cuda ? reinterpret_cast<GetStream>(dlsym(torch_cuda, "aoti_torch_get_current_cuda_stream"))
                      : nullptr;
  }();
  STD_TORCH_CHECK(get_stream != nullptr, "aicr_ext: this torch has no CUDA (libtorch_cuda.so is not loaded)");
  void* stream = nullptr;
  STD_TORCH_CHECK(get_stream(device, &stream) == 0, "aicr_ext: torch has no current stream for device ",
                  device);
  return static_cast<cudaStream_t>(stream);
}

#endif

// `op` is the operator in the message.
inline void check_launch(const char* op, cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorString(error));
}

}  // namespace aicr
