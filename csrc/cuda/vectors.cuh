// Neighbours in memory as one load or store.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/numbers.cuh"

namespace aicr {

// The most bytes of one load of a thread.
constexpr size_t kVectorBytes = 16;

template <typename T, int V>
struct alignas(sizeof(T) * V) Vector {
  T values[V];
};

// `from` is a multiple of sizeof(T) * V, a power of two.
template <int V, typename T>
__device__ __forceinline__ void load_floats(const T* from, float (&to)[V]) {
  const auto loaded = *reinterpret_cast<const Vector<T, V>*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(loaded.values[i]);
}

template <int V, typename T>
__device__ __forceinline__ void store_floats(const float (&from)[V], T* to) {
  Vector<T, V> stored;
#pragma unroll
  for (int i = 0; i < V; ++i) stored.values[i] = from_float<T>(from[i]);
  *reinterpret_cast<Vector<T, V>*>(to) = stored;
}

// A weight that is float32 or of the feature type.
template <typename T>
__device__ __forceinline__ float weight_at(const void* weight, bool is_float32, int64_t index) {
  return is_float32 ? static_cast<const float*>(weight)[index]
                    : to_float(static_cast<const T*>(weight)[index]);
}

// Whether vectors of `bytes` may be read and written at all these places.
template <typename... Pointers>
bool aligned_to(size_t bytes, Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

}  // namespace aicr
