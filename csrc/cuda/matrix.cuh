// Products of small matrices by a whole warp (tensor cores, from sm_80 on), and loading what they take. All
// 32 lanes take part in each call.
//
// Which elements a lane holds, two 16-bit numbers to a register, with row = lane / 4 and
// column = lane % 4 * 2:
//
// a, 16 x 16: a[0] at (row, column), a[1] at (row + 8, column), a[2] at (row, column + 8) and a[3] at
// (row + 8, column + 8), each with its right neighbour.
//
// b, 16 x 8: b[0] at (column, row) and b[1] at (column + 8, row), each with its lower neighbour.
//
// sum, 16 x 8: sum[0] and sum[1] at (row, column) and its right neighbour, sum[2] and sum[3] eight rows
// below.
//
// Four 8-bit numbers to a register: a is 16 x 32 and b is 32 x 8, and all is the same but that columns of a
// and rows of b are counted twice: a[0] at (row, 2 column) with three right neighbours, b[1] at
// (2 column + 16, row) with three lower ones.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#if defined(AICR_EMULATION)
#include "emulation/matrix.hpp"
#endif

namespace aicr {

// sum += a * b, in float32; T is what a and b hold, __nv_bfloat16 or __half.
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&sum)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>,
                "a and b must be 16-bit floats");
#if defined(AICR_EMULATION)
  emulation::multiply<T>(sum, a, b);
#else
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

// sum += a * b, exactly, modulo 2^32; A and B are what a and b hold, int8_t or uint8_t.
template <typename A, typename B>
__device__ __forceinline__ void mma_m16n8k32(int32_t (&sum)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  constexpr bool kSignedA = std::is_same_v<A, int8_t>, kSignedB = std::is_same_v<B, int8_t>;
  static_assert(kSignedA || std::is_same_v<A, uint8_t>, "a must be of 8-bit integers");
  static_assert(kSignedB || std::is_same_v<B, uint8_t>, "b must be of 8-bit integers");
#if defined(AICR_EMULATION)
  emulation::multiply_bytes<A, B>(sum, a, b);
#else
#define AICR_MULTIPLY_BYTES(types)                             \
  asm("mma.sync.aligned.m16n8k32.row.col.s32." types           \
      ".s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "    \
      "{%0, %1, %2, %3};"                                      \
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3]) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (kSignedA && kSignedB) {
    AICR_MULTIPLY_BYTES("s8.s8");
  } else if constexpr (kSignedA) {
    AICR_MULTIPLY_BYTES("s8.u8");
  } else if constexpr (kSignedB) {
    AICR_MULTIPLY_BYTES("u8.s8");
  } else {
    AICR_MULTIPLY_BYTES("u8.u8");
  }
#undef AICR_MULTIPLY_BYTES
#endif
}

// Loads kCount (1, 2 or 4) matrices of 8 x 8 16-bit numbers. Lane 8 m + r brings the address of row r of
// matrix m: 16 bytes of shared memory, aligned to as many; the addresses of other lanes do not matter.
// Register m gets the two elements at (lane / 4, lane % 4 * 2) of matrix m, if kTransposed of the transposed
// matrix.
template <int kCount, bool kTransposed = false>
__device__ __forceinline__ void load_matrices(uint32_t (&registers)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4, "ldmatrix loads 1, 2 or 4 matrices");
#if defined(AICR_EMULATION)
  emulation::load_matrices(registers, kCount, kTransposed, row);
#else
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kCount == 1) {
    if constexpr (kTransposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                   : "=r"(registers[0])
                   : "r"(at)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                   : "=r"(registers[0])
                   : "r"(at)
                   : "memory");
    }
  } else if constexpr (kCount == 2) {
    if constexpr (kTransposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                   : "=r"(registers[0]), "=r"(registers[1])
                   : "r"(at)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                   : "=r"(registers[0]), "=r"(registers[1])
                   : "r"(at)
                   : "memory");
    }
  } else {
    if constexpr (kTransposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                   : "r"(at)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                   : "r"(at)
                   : "memory");
    }
  }
#endif
}

}  // namespace aicr
