// What the tensor cores do, for csrc/cuda/matrix.cuh. Sums of floats are taken in double and rounded once;
// the device's may differ from them in the last bits. Those of integers are the device's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "emulation/block.hpp"

namespace aicr::emulation {

inline float as_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
inline float as_float(__half x) {
  return __half2float(x);
}

// The two numbers in a register.
template <typename T>
void unpack(uint32_t packed, double& first, double& second) {
  T two[2];
  memcpy(two, &packed, sizeof two);
  first = as_float(two[0]);
  second = as_float(two[1]);
}

struct Product {
  const uint32_t* a;
  const uint32_t* b;
  float* sum;
};

template <typename T>
void multiply(float* sum, const uint32_t* a, const uint32_t* b, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  Product own{a, b, sum};
  const Combine combine = [](void* const* data, uint32_t) {
    double left[16][16], right[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const auto& given = *static_cast<const Product*>(data[lane]);
      const int row = lane / 4, column = lane % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        double* to = &left[row + i % 2 * 8][column + i / 2 * 8];
        unpack<T>(given.a[i], to[0], to[1]);
      }
      for (int i = 0; i < 2; ++i) {
        unpack<T>(given.b[i], right[column + 8 * i][row], right[column + 8 * i + 1][row]);
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      const auto& given = *static_cast<const Product*>(data[lane]);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double total = given.sum[i];
        for (int k = 0; k < 16; ++k) total += left[row][k] * right[k][column];
        given.sum[i] = static_cast<float>(total);
      }
    }
  };
  meet_lanes("mma_m16n8k16", 0xffffffffu, &own, combine, {file, line});
}

struct ByteProduct {
  const uint32_t* a;
  const uint32_t* b;
  int32_t* sum;
};

template <typename A, typename B>
void multiply_bytes(int32_t* sum, const uint32_t* a, const uint32_t* b, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  ByteProduct own{a, b, sum};
  const Combine combine = [](void* const* data, uint32_t) {
    A left[16][32];
    B right[8][32];  // of each column
    for (int lane = 0; lane < 32; ++lane) {
      const auto& given = *static_cast<const ByteProduct*>(data[lane]);
      const int row = lane / 4, k = lane % 4 * 4;
      for (int i = 0; i < 4; ++i) memcpy(&left[row + i % 2 * 8][k + i / 2 * 16], &given.a[i], 4);
      for (int i = 0; i < 2; ++i) memcpy(&right[row][k + 16 * i], &given.b[i], 4);
    }
    for (int lane = 0; lane < 32; ++lane) {
      const auto& given = *static_cast<const ByteProduct*>(data[lane]);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        int32_t product = 0;
        for (int k = 0; k < 32; ++k) product += left[row][k] * right[column][k];
        // Unsigned: it may wrap around.
        given.sum[i] = static_cast<int32_t>(static_cast<uint32_t>(given.sum[i]) + product);
      }
    }
  };
  meet_lanes("mma_m16n8k32", 0xffffffffu, &own, combine, {file, line});
}

struct MatrixLoad {
  const void* row;
  uint32_t* registers;
  int count;
  bool transposed;
};

inline void load_matrices(uint32_t* registers, int count, bool transposed, const void* row,
                          const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (own_lane() < 8 * count) check_shared("load_matrices", row, 16, 16);
  MatrixLoad own{row, registers, count, transposed};
  const Combine combine = [](void* const* data, uint32_t) {
    const auto load_of = [&](int lane) { return static_cast<const MatrixLoad*>(data[lane]); };
    for (int matrix = 0; matrix < load_of(0)->count; ++matrix) {
      uint16_t element[8][8];
      for (int r = 0; r < 8; ++r) memcpy(element[r], load_of(8 * matrix + r)->row, sizeof element[r]);
      for (int lane = 0; lane < 32; ++lane) {
        const MatrixLoad& load = *load_of(lane);
        const int row = lane / 4, column = lane % 4 * 2;
        const uint32_t first = load.transposed ? element[column][row] : element[row][column];
        const uint32_t second = load.transposed ? element[column + 1][row] : element[row][column + 1];
        load.registers[matrix] = first | second << 16;
      }
    }
  };
  meet_lanes("load_matrices", 0xffffffffu, &own, combine, {file, line});
}

}  // namespace aicr::emulation
