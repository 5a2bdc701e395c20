// Arithmetic of fixed-point numbers, the same on every device (aicr_ext/ops/integer.py).
#pragma once

#include <cstdint>

#include "common/host_device.hpp"

namespace aicr {

constexpr int32_t kIntegerLimit = 32767;

// value * 2**-shift, rounded to nearest, halves up; |value| * 2**max(-shift, 0) + 2**max(shift - 1, 0) must
// fit.
AICR_HOST_DEVICE inline int32_t shifted(int32_t value, int32_t shift) {
  if (shift <= 0) return value * (int32_t{1} << -shift);
  return (value + (int32_t{1} << (shift - 1))) >> shift;
}

AICR_HOST_DEVICE inline int32_t saturated(int32_t value) {
  return value > kIntegerLimit ? kIntegerLimit : value < -kIntegerLimit ? -kIntegerLimit : value;
}

// Points of the table of integer_asinh per octave, and its size.
constexpr int64_t kAsinhPoints = 64, kAsinhTable = 16 * kAsinhPoints + 1;

// asinh with exponent 11 of a number with this exponent; `octave_of(m)` is the floor of log2 of a positive m.
template <typename Octave>
AICR_HOST_DEVICE inline int32_t integer_asinh(int32_t value, int32_t exponent, const int32_t* table,
                                              Octave octave_of) {
  constexpr int64_t kLargest = (int64_t{1} << 28) - 1, kOne = 4096;
  const int64_t magnitude = static_cast<int64_t>(value < 0 ? -static_cast<int64_t>(value) : value)
                            << (12 - exponent);
  const auto all = static_cast<int32_t>(magnitude > kLargest - kOne ? kLargest : magnitude + kOne);
  const int32_t octave = octave_of(all);
  const int32_t rest = all - (int32_t{1} << octave), place = rest >> (octave - 6);
  const int32_t within = rest - (place << (octave - 6));
  const int32_t part = octave >= 16 ? within >> (octave - 16) : within << (16 - octave);
  const int32_t* at = table + (octave - 12) * kAsinhPoints + place;
  const int32_t curve = at[0] + (((at[1] - at[0]) * part + 512) >> 10);
  const int32_t result = (curve + 16) >> 5;
  return value < 0 ? -result : result;
}

}  // namespace aicr
