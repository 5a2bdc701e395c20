#include "cpu/integer_elementwise_kernel.hpp"

#include <algorithm>

#include "common/integer.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {
namespace {

constexpr int64_t kBlock = 64;  // sums of so many channels stay in registers or the first cache

// One pixel of a picture: `rows` are the three rows around it, null outside.
AICR_INLINE void depthwise_pixel(const IntegerDepthwise& task, const int16_t* const rows[3], int64_t column,
                                 int16_t* out) {
  for (int64_t begin = 0; begin < task.channels; begin += kBlock) {
    const int64_t count = std::min(kBlock, task.channels - begin);
    int32_t sum[kBlock];
    for (int64_t c = 0; c < count; ++c) sum[c] = task.bias[begin + c];
    for (int tap = 0; tap < 9; ++tap) {
      const int16_t* row = rows[tap / 3];
      const int64_t at = column + tap % 3 - 1;
      if (row == nullptr || at < 0 || at >= task.width) continue;
      const int16_t *x = row + at * task.channels + begin,
                    *weight = task.weight + tap * task.channels + begin;
      for (int64_t c = 0; c < count; ++c) sum[c] += static_cast<int32_t>(x[c]) * weight[c];
    }
    for (int64_t c = 0; c < count; ++c) {
      const int32_t shift = task.shift[begin + c];
      out[begin + c] = static_cast<int16_t>(saturated((sum[c] + (int32_t{1} << (shift - 1))) >> shift));
    }
  }
}

}  // namespace

AICR_VECTOR_CLONES void integer_depthwise_run(const IntegerDepthwise& task, int64_t first, int64_t last) {
  const int64_t stride = task.width * task.channels;
  for (int64_t row = first; row < last; ++row) {
    const int16_t* rows[3];
    for (int64_t r = 0; r < 3; ++r) {
      const int64_t y = row + r - 1;
      rows[r] = y >= 0 && y < task.height ? task.x + y * stride : nullptr;
    }
    for (int64_t column = 0; column < task.width; ++column) {
      depthwise_pixel(task, rows, column, task.out + row * stride + column * task.channels);
    }
  }
}

AICR_VECTOR_CLONES void integer_sum_run(int64_t pixels, int64_t channels, const int16_t* x, int16_t* out) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel, x += 2 * channels, out += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      out[c] = static_cast<int16_t>(saturated(static_cast<int32_t>(x[c]) + x[channels + c]));
    }
  }
}

AICR_VECTOR_CLONES void integer_gate_run(int64_t pixels, int64_t channels, int32_t shift, const int16_t* x,
                                         int16_t* out) {
  const int32_t half = int32_t{1} << (shift - 1);
  for (int64_t pixel = 0; pixel < pixels; ++pixel, x += 2 * channels, out += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const int32_t product = static_cast<int32_t>(x[c]) * x[channels + c];
      out[c] = static_cast<int16_t>(saturated((product + half) >> shift));
    }
  }
}

void integer_asinh_run(int64_t pixels, int64_t channels, const int32_t* value, const int32_t* exponent,
                       const int32_t* table, int16_t* out) {
  const auto octave = [](int32_t m) { return 31 - __builtin_clz(static_cast<uint32_t>(m)); };
  for (int64_t pixel = 0; pixel < pixels; ++pixel, value += channels, out += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      out[c] = static_cast<int16_t>(integer_asinh(value[c], exponent[c], table, octave));
    }
  }
}

}  // namespace aicr
