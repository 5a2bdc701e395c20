// Kernels that test the host execution of kernels: right ones, and wrong ones that it has to find out.
// python_tests/test_emulation.py says what is expected of each.
#include <cstring>
#include <string>

#include "cuda/async_copy.cuh"
#include "cuda/launch.cuh"
#include "cuda/matrix.cuh"
#include "cuda/numbers.cuh"

namespace aicr {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kThreads = 96;

__device__ int own_number() {
  return static_cast<int>(threadIdx.x);
}

// out[t] = t + 1 by way of the next thread; without the barrier it may not be there yet.
template <bool kBarrier>
__device__ void pass_on(int* place, int* out) {
  const int t = own_number(), n = static_cast<int>(blockDim.x);
  place[t] = t;
  if (kBarrier) __syncthreads();
  out[t] = place[(t + 1) % n] + 1;
}

template <bool kBarrier>
__global__ void static_memory_kernel(int* out) {
  __shared__ int place[kThreads];
  pass_on<kBarrier>(place, out);
}

template <bool kBarrier>
__global__ void dynamic_memory_kernel(int* out) {
  AICR_DYNAMIC_SHARED(int, place);
  pass_on<kBarrier>(place, out);
}

// What a block finds in its memory.
__global__ void garbage_kernel(int* out) {
  __shared__ int fixed;
  AICR_DYNAMIC_SHARED(int, dynamic);
  out[2 * blockIdx.x] = fixed;
  out[2 * blockIdx.x + 1] = dynamic[0];
  fixed = dynamic[0] = 0;
}

__global__ void overrun_kernel(int words) {
  AICR_DYNAMIC_SHARED(int, place);
  place[words] = 1;
}

__global__ void static_overrun_kernel(int word) {
  __shared__ volatile int place[4];
  *(place + word) = 1;
}

enum BarrierCase { kEnded, kTwoBarriers, kBarrierAndLanes };

__global__ void divergent_kernel(int which, int* out) {
  const int t = own_number();
  if (which == kEnded) {
    if (t == 40) return;
    __syncthreads();
  } else if (which == kTwoBarriers) {
    if (t < 40) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if (t == 40) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  out[t] = t;
}

enum MaskCase { kLacksItself, kEndedLane, kNoSuchLane, kOtherMask, kOtherPlace, kReadsOutside, kNeverComes };

__global__ void mask_kernel(int which, int* out) {
  const int t = own_number();
  switch (which) {
    case kLacksItself:
      out[t] = __shfl_sync(0xffu, t, 0);
      break;
    case kEndedLane:
      if (t == 3) return;
      out[t] = __shfl_sync(kAll, t, 0);
      break;
    case kNoSuchLane:  // launched with 8 threads
      out[t] = __shfl_sync(kAll, t, 0);
      break;
    case kOtherMask:
      out[t] = __any_sync(t < 16 ? kAll : 0xfffffffeu, t == 0);
      break;
    case kOtherPlace:
      if (t < 16) {
        out[t] = __shfl_sync(kAll, t, 0);
      } else {
        out[t] = __shfl_sync(kAll, t, 1);
      }
      break;
    case kReadsOutside:
      if (t < 8) out[t] = __shfl_sync(0xffu, t, 9);
      break;
    case kNeverComes:
      if (t != 3) __syncwarp();
      __syncthreads();
      break;
    default:
      break;
  }
}

// One row of 16 numbers for each thread.
__global__ void warp_kernel(unsigned* out) {
  const int t = own_number(), lane = t % 32;
  unsigned* own = out + 16 * t;
  int sum = t;
  for (int step = 1; step < 32; step *= 2) sum += __shfl_xor_sync(kAll, sum, step);
  own[0] = static_cast<unsigned>(sum);
  int prefix = 1;
  for (int step = 1; step < 32; step *= 2) {
    const int before = __shfl_up_sync(kAll, prefix, static_cast<unsigned>(step));
    if (lane >= step) prefix += before;
  }
  own[1] = static_cast<unsigned>(prefix);
  own[2] = static_cast<unsigned>(__shfl_down_sync(kAll, t, 5, 16));
  own[3] = static_cast<unsigned>(__shfl_sync(kAll, t, 2, 8));
  own[4] = __ballot_sync(kAll, t % 3 == 0);
  own[5] = static_cast<unsigned>(__any_sync(kAll, t == 40));
  own[6] = static_cast<unsigned>(__all_sync(kAll, t < 64));
  // Two halves that do not wait for each other.
  own[7] = lane < 8 ? __ballot_sync(0x000000ffu, lane % 2) : __ballot_sync(0xffffff00u, lane % 2);
  own[8] = static_cast<unsigned>(__syncthreads_count(t % 5 == 0));
  own[9] = static_cast<unsigned>(__syncthreads_or(t == 7));
  own[10] = static_cast<unsigned>(__syncthreads_and(t != 7));
  own[11] = 0;
  own[12] = __reduce_add_sync(kAll, static_cast<unsigned>(t));
  own[13] = __reduce_xor_sync(kAll, 1u << lane);
  own[14] = __reduce_min_sync(kAll, static_cast<unsigned>(100 - t));
  own[15] = __reduce_max_sync(kAll, static_cast<unsigned>(100 - t));
  __syncthreads();
  atomicAdd(out + 11, static_cast<unsigned>(t));
}

enum CopyCase { kWaits, kDoesNotWait, kWaitsForFewer, kForgets };

// Two groups of copies: four numbers of `in`, then four zeros.
__global__ void copy_kernel(int which, const int* in, int* out) {
  AICR_DYNAMIC_SHARED(int, place);
  int* own = place + 8 * own_number();
  copy_async<16>(own, in + 4 * own_number());
  commit_copies();
  copy_async<8>(own + 4, in, false);
  copy_async<4>(own + 6, in, false);
  copy_async<4>(own + 7, in, false);
  commit_copies();
  if (which == kWaits) wait_for_copies<0>();
  if (which == kWaitsForFewer) wait_for_copies<1>();
  for (int i = 0; i < 8; ++i) out[8 * own_number() + i] = own[i];
  if (which != kForgets) wait_for_copies<0>();
}

// out (16 x 8) = a (16 x 16) b (16 x 8); if kPlain, b is given transposed (8 x 16).
template <typename T, int kMatrices, bool kPlain>
__global__ void product_kernel(const float* a, const float* b, float* out) {
  AICR_DYNAMIC_SHARED(T, place);
  T *left = place, *right = place + 256;
  const int lane = own_number();
  for (int i = lane; i < 256; i += 32) left[i] = from_float<T>(a[i]);
  for (int i = lane; i < 128; i += 32) right[i] = from_float<T>(b[i]);
  __syncwarp();
  uint32_t of_a[4], of_b[2];
  if constexpr (kMatrices == 4) {
    load_matrices<4>(of_a, left + lane % 16 * 16 + lane / 16 * 8);
  } else {
    for (int m = 0; m < 4; ++m) {
      uint32_t one[1];
      load_matrices<1>(one, left + (lane % 8 + m % 2 * 8) * 16 + m / 2 * 8);
      of_a[m] = one[0];
    }
  }
  if constexpr (kPlain) {
    load_matrices<2>(of_b, right + lane % 8 * 16 + lane / 8 % 2 * 8);
  } else {
    load_matrices<2, true>(of_b, right + lane % 16 * 8);
  }
  float sum[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  mma_m16n8k16<T>(sum, of_a, of_b);
  for (int i = 0; i < 4; ++i) out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i] - 1.0f;
}

// out (16 x 8) += a (16 x 32) b (32 x 8), of which b is given transposed.
template <typename A, typename B>
__global__ void byte_product_kernel(const unsigned char* a, const unsigned char* b, int* out) {
  const int lane = own_number(), row = lane / 4, k = lane % 4 * 4;
  uint32_t of_a[4], of_b[2];
  for (int i = 0; i < 4; ++i) memcpy(&of_a[i], a + (row + i % 2 * 8) * 32 + k + i / 2 * 16, 4);
  for (int i = 0; i < 2; ++i) memcpy(&of_b[i], b + row * 32 + k + i * 16, 4);
  int32_t sum[4];
  int* own = out + row * 8 + lane % 4 * 2;
  for (int i = 0; i < 4; ++i) sum[i] = own[i / 2 * 64 + i % 2];
  mma_m16n8k32<A, B>(sum, of_a, of_b);
  for (int i = 0; i < 4; ++i) own[i / 2 * 64 + i % 2] = sum[i];
}

enum AddressCase { kMisaligned, kNotShared };

__global__ void address_kernel(int which, const int* in) {
  AICR_DYNAMIC_SHARED(unsigned char, place);
  uint32_t one[1];
  load_matrices<1>(one, which == kMisaligned ? place + 8 : reinterpret_cast<const unsigned char*>(in));
}

template <typename T>
__global__ void rounding_kernel(int count, const float* in, float* out) {
  for (int i = own_number(); i < count; i += static_cast<int>(blockDim.x))
    out[i] = to_float(from_float<T>(in[i]));
}

// The coordinates of every thread of a grid of (2, 3, 2) blocks of (4, 2, 3).
__global__ void coordinates_kernel(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  atomicAdd(out + 24 * block + thread, 1u);
}

cudaError_t run(const std::string& name, int variant, const void* in, void* out) {
  auto* numbers = static_cast<int*>(out);
  auto* counts = static_cast<unsigned*>(out);
  auto* floats = static_cast<float*>(out);
  const auto* given = static_cast<const int*>(in);
  const auto* matrices = static_cast<const float*>(in);
  constexpr size_t kBytes = kThreads * sizeof(int);
  if (name == "static_memory") {
    return variant != 0 ? AICR_LAUNCH((static_memory_kernel<true>), 2, kThreads, 0, nullptr, numbers)
                        : AICR_LAUNCH((static_memory_kernel<false>), 2, kThreads, 0, nullptr, numbers);
  }
  if (name == "dynamic_memory") {
    return variant != 0 ? AICR_LAUNCH((dynamic_memory_kernel<true>), 2, kThreads, kBytes, nullptr, numbers)
                        : AICR_LAUNCH((dynamic_memory_kernel<false>), 2, kThreads, kBytes, nullptr, numbers);
  }
  if (name == "garbage")
    return AICR_LAUNCH(garbage_kernel, 2, 1, static_cast<size_t>(variant), nullptr, numbers);
  if (name == "overrun") return AICR_LAUNCH(overrun_kernel, 1, 1, 16, nullptr, variant);
  if (name == "static_overrun") return AICR_LAUNCH(static_overrun_kernel, 1, 1, 0, nullptr, variant);
  if (name == "threads")
    return AICR_LAUNCH(divergent_kernel, 1, static_cast<unsigned>(variant), 0, nullptr, 0, numbers);
  if (name == "blocks") return AICR_LAUNCH(overrun_kernel, static_cast<unsigned>(variant), 1, 16, nullptr, 0);
  if (name == "divergent") return AICR_LAUNCH(divergent_kernel, 1, kThreads, 0, nullptr, variant, numbers);
  if (name == "mask") {
    return AICR_LAUNCH(mask_kernel, 1, variant == kNoSuchLane ? 8 : 32, 0, nullptr, variant, numbers);
  }
  if (name == "warp") return AICR_LAUNCH(warp_kernel, 1, kThreads, 0, nullptr, counts);
  if (name == "copy") return AICR_LAUNCH(copy_kernel, 1, 32, 1024, nullptr, variant, given, numbers);
  if (name == "product") {
    const float* b = matrices + 256;
    switch (variant) {
      case 0:
        return AICR_LAUNCH((product_kernel<__nv_bfloat16, 4, false>), 1, 32, 768, nullptr, matrices, b,
                           floats);
      case 1:
        return AICR_LAUNCH((product_kernel<__half, 4, false>), 1, 32, 768, nullptr, matrices, b, floats);
      case 2:
        return AICR_LAUNCH((product_kernel<__half, 1, true>), 1, 32, 768, nullptr, matrices, b, floats);
      default:
        return cudaErrorInvalidValue;
    }
  }
  if (name == "byte_product") {
    const auto* a = static_cast<const unsigned char*>(in);
    const unsigned char* b = a + 512;
    switch (variant) {
      case 0:
        return AICR_LAUNCH((byte_product_kernel<int8_t, int8_t>), 1, 32, 0, nullptr, a, b, numbers);
      case 1:
        return AICR_LAUNCH((byte_product_kernel<int8_t, uint8_t>), 1, 32, 0, nullptr, a, b, numbers);
      case 2:
        return AICR_LAUNCH((byte_product_kernel<uint8_t, int8_t>), 1, 32, 0, nullptr, a, b, numbers);
      case 3:
        return AICR_LAUNCH((byte_product_kernel<uint8_t, uint8_t>), 1, 32, 0, nullptr, a, b, numbers);
      default:
        return cudaErrorInvalidValue;
    }
  }
  if (name == "address") return AICR_LAUNCH(address_kernel, 1, 32, 256, nullptr, variant, given);
  if (name == "round_bfloat16") {
    return AICR_LAUNCH((rounding_kernel<__nv_bfloat16>), 1, 64, 0, nullptr, variant, matrices, floats);
  }
  if (name == "round_float16") {
    return AICR_LAUNCH((rounding_kernel<__half>), 1, 64, 0, nullptr, variant, matrices, floats);
  }
  if (name == "coordinates") {
    return AICR_LAUNCH(coordinates_kernel, dim3(2, 3, 2), dim3(4, 2, 3), 0, nullptr, counts);
  }
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace aicr

// Runs one of them; what went wrong, or nothing.
extern "C" __attribute__((visibility("default"))) const char* aicr_emulation_self_test(const char* name,
                                                                                       int variant,
                                                                                       const void* in,
                                                                                       void* out) {
  const cudaError_t error = aicr::run(name, variant, in, out);
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}
