// Numbers of latents between quantiser and coder, the same on every device (aicr_ext/ops/latent.py).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.hpp"
#include "common/integer.hpp"

namespace aicr {

// What the coding steps of latents read besides these. A pixel is a place of a picture, pictures one after
// the other; a step takes half of its channels.
struct LatentStep {
  int64_t height, width, channels;
  bool second;
  int64_t parameter_channels;
  const int16_t* parameters;  // [pixels][parameter_channels]: the last are log scales and means
  const int32_t* exponent;    // [channels]
  int64_t step_channels;
  const int16_t* step;     // [pixels][step_channels], or null
  const float* zones;      // [kScaleLevels], or null
  const float* noise;      // [pixels][channels], or null
  const float* variances;  // [kScaleLevels], if there is noise
};

constexpr int32_t kScaleLevels = 128;

// The level of scale nearest to a log standard deviation with exponent 11. Level 0 is log .11, and there are
// 127 / (log 64 - log .11) of them to a unit of the logarithm.
AICR_HOST_DEVICE inline int32_t scale_level(int32_t log_scale) {
  constexpr int32_t kLowest = -4520, kLevelsPerUnit = 40856, kShift = 22;
  constexpr int32_t kLast = kScaleLevels - 1;
  const int32_t above = log_scale > kLowest ? log_scale - kLowest : 0;
  const int32_t level = (above * kLevelsPerUnit + (int32_t{1} << (kShift - 1))) >> kShift;
  return level < kLast ? level : kLast;
}

// 2**-exponent, of an exponent of 0 to 12.
AICR_HOST_DEVICE inline double unit_of(int32_t exponent) {
  const int64_t bits = static_cast<int64_t>(1023 - exponent) << 52;
  double unit;
  memcpy(&unit, &bits, sizeof(unit));
  return unit;
}

// What y is divided by, of a quantiser step with exponent 11.
AICR_HOST_DEVICE inline double quantiser_step(int32_t step) {
  const double real = step * (1.0 / 2048);
  return real > 0.5 ? real : 0.5;
}

// A residual without the noise of this standard deviation in it (Wiener's filter), if it has this variance
// otherwise. The square is exact, so adding it is the same with and without contraction.
AICR_HOST_DEVICE inline double without_noise(double residual, float noise, float variance) {
  const double deviation = noise;
  return residual * (variance / (variance + deviation * deviation));
}

// The symbol of a number from which the mean is taken: the nearest one, ties to even.
AICR_HOST_DEVICE inline int32_t nearest_symbol(double residual) {
  constexpr double kLimit = kIntegerLimit;
  residual = residual > -kLimit ? residual : -kLimit;  // also what is no number
  residual = residual < kLimit ? residual : kLimit;
  return static_cast<int32_t>(rint(residual));
}

// The same, but 0 where the level is 0, whose symbols are not coded, and within the dead zone of a level.
AICR_HOST_DEVICE inline int32_t coded_symbol(double residual, int32_t level, const float* zones) {
  const bool dead = level == 0 || (zones != nullptr && fabs(residual) < zones[level]);
  return dead ? 0 : nearest_symbol(residual);
}

// The value of a symbol, with this exponent.
AICR_HOST_DEVICE inline int32_t value_of(int32_t symbol, int32_t mean, int32_t exponent) {
  return symbol * (int32_t{1} << exponent) + mean;
}

// The first of the channels that a step takes at a place.
AICR_HOST_DEVICE inline int64_t first_channel(const LatentStep& task, int64_t row, int64_t column) {
  return ((row + column) % 2 == 1) == task.second ? 0 : task.channels / 2;
}

}  // namespace aicr
