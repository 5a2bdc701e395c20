// out = GELU(gate) * value for the halves gate and value of x, and its derivative, grad_x = (grad * value
// * GELU'(gate), grad * GELU(gate)); in float32.
//
// Layout: memory as [rows][2][run]; one kernel serves channels-last maps, where a row is a pixel, and
// planes, where it is a picture.
//
// Tile: a thread per vector of 16 bytes of a half, or per element where halves do not begin at such
// places.
//
// Shared: none.
//
// Memory: forward x read once, out written once; backward x and grad read once, grad_x written once. About
// 25 and 50 FLOP per element of the result, most of them for erf and exp.
//
// Determinism: no sums and no atomics.
#include "cuda/gelu_gate.cuh"

#include <climits>

#include "cuda/dispatch.cuh"
#include "cuda/gelu.cuh"
#include "cuda/launch.cuh"
#include "cuda/vectors.cuh"

namespace aicr {
namespace {

constexpr int kThreads = 256;

// Where the vector of a thread lies in x (its half of gates) and in the result.
struct Place {
  int64_t gate, out;
  bool inside;
};

template <int V>
__device__ __forceinline__ Place own_place(const GeluGateCuda& a) {
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t run = a.run / V, numbers = a.rows * run;
  // 64-bit division takes several times as long.
  const int64_t row = numbers <= UINT_MAX
                          ? static_cast<int64_t>(static_cast<uint32_t>(number) / static_cast<uint32_t>(run))
                          : number / run;
  return {(number + row * run) * V, number * V, number < numbers};
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads) gelu_gate_kernel(GeluGateCuda a) {
  const Place at = own_place<V>(a);
  if (!at.inside) return;
  const T* x = static_cast<const T*>(a.x) + at.gate;
  float gate[V], value[V];
  load_floats<V>(x, gate);
  load_floats<V>(x + a.run, value);
#pragma unroll
  for (int i = 0; i < V; ++i) gate[i] = gelu(gate[i]) * value[i];
  store_floats<V>(gate, static_cast<T*>(a.out) + at.out);
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads) gelu_gate_backward_kernel(GeluGateCuda a) {
  const Place at = own_place<V>(a);
  if (!at.inside) return;
  const T* x = static_cast<const T*>(a.x) + at.gate;
  T* grad_x = static_cast<T*>(a.out) + at.gate;
  float gate[V], value[V], grad[V];
  load_floats<V>(x, gate);
  load_floats<V>(x + a.run, value);
  load_floats<V>(static_cast<const T*>(a.grad) + at.out, grad);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const GeluWithSlope of_gate = gelu_with_slope(gate[i]);
    value[i] *= grad[i] * of_gate.slope;
    gate[i] = grad[i] * of_gate.value;
  }
  store_floats<V>(value, grad_x);
  store_floats<V>(gate, grad_x + a.run);
}

template <typename T, int V>
cudaError_t launch(const GeluGateCuda& a, cudaStream_t stream) {
  const int64_t blocks = (a.rows * (a.run / V) + kThreads - 1) / kThreads;
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  if (a.grad != nullptr) {
    return AICR_LAUNCH((gelu_gate_backward_kernel<T, V>), static_cast<unsigned>(blocks), kThreads, 0, stream,
                       a);
  }
  return AICR_LAUNCH((gelu_gate_kernel<T, V>), static_cast<unsigned>(blocks), kThreads, 0, stream, a);
}

template <typename T>
cudaError_t launch_vectors(const GeluGateCuda& a, cudaStream_t stream) {
  constexpr int V = kVectorBytes / sizeof(T);
  const bool vectors = a.run % V == 0 && aligned_to(kVectorBytes, a.x, a.grad, a.out);
  return vectors ? launch<T, V>(a, stream) : launch<T, 1>(a, stream);
}

}  // namespace

cudaError_t launch_gelu_gate(const GeluGateCuda& arguments, cudaStream_t stream) {
  return dispatch_type(arguments.type, [&](auto tag) {
    return launch_vectors<typename decltype(tag)::Type>(arguments, stream);
  });
}

}  // namespace aicr
