#include "cpu/latent_kernel.hpp"

#include <algorithm>

#include "cpu/vector_clones.hpp"

namespace aicr {
namespace {

// The first channel of the step at a pixel.
AICR_INLINE int64_t first_of(const LatentStep& task, int64_t pixel) {
  return first_channel(task, pixel / task.width % task.height, pixel % task.width);
}

// Of a pixel: log scales and means of all channels.
AICR_INLINE const int16_t* scales_of(const LatentStep& task, int64_t pixel) {
  return task.parameters + (pixel + 1) * task.parameter_channels - 2 * task.channels;
}

AICR_INLINE const int16_t* means_of(const LatentStep& task, int64_t pixel) {
  return task.parameters + (pixel + 1) * task.parameter_channels - task.channels;
}

// Levels of the scales at `log_scale`.
AICR_INLINE void levels(const int16_t* log_scale, int64_t count, uint8_t* index) {
  for (int64_t c = 0; c < count; ++c) index[c] = static_cast<uint8_t>(scale_level(log_scale[c]));
}

}  // namespace

AICR_VECTOR_CLONES void latent_scale_index_run(const LatentStep& task, uint8_t* index, int64_t first,
                                               int64_t last) {
  const int64_t half = task.channels / 2;
  for (int64_t pixel = first; pixel < last; ++pixel) {
    levels(scales_of(task, pixel) + first_of(task, pixel), half, index + pixel * half);
  }
}

AICR_VECTOR_CLONES void latent_quantise_run(const LatentStep& task, const float* y, int16_t* symbols,
                                            uint8_t* index, int64_t first, int64_t last) {
  const int64_t half = task.channels / 2;
  for (int64_t pixel = first; pixel < last; ++pixel) {
    const int64_t begin = first_of(task, pixel);
    const float* own_y = y + pixel * task.channels + begin;
    const int16_t* mean = means_of(task, pixel) + begin;
    const int32_t* exponent = task.exponent + begin;
    int16_t* own_symbols = symbols + pixel * half;
    uint8_t* own_index = index + pixel * half;
    levels(scales_of(task, pixel) + begin, half, own_index);
    const auto quantise = [&](const auto& scaled) AICR_INLINE_LAMBDA {
      const auto residual = [&](int64_t c)
                                AICR_INLINE_LAMBDA { return scaled(c) - mean[c] * unit_of(exponent[c]); };
      if (task.noise == nullptr) {
        for (int64_t c = 0; c < half; ++c) {
          own_symbols[c] = static_cast<int16_t>(coded_symbol(residual(c), own_index[c], task.zones));
        }
      } else {
        const float* noise = task.noise + pixel * task.channels + begin;
        for (int64_t c = 0; c < half; ++c) {
          const double picture = without_noise(residual(c), noise[c], task.variances[own_index[c]]);
          own_symbols[c] = static_cast<int16_t>(coded_symbol(picture, own_index[c], task.zones));
        }
      }
    };
    if (task.step == nullptr) {
      quantise([&](int64_t c) AICR_INLINE_LAMBDA { return static_cast<double>(own_y[c]); });
    } else {
      const int16_t* step = task.step + pixel * task.step_channels + begin;
      quantise([&](int64_t c) AICR_INLINE_LAMBDA { return own_y[c] / quantiser_step(step[c]); });
    }
  }
}

AICR_VECTOR_CLONES void latent_accept_run(const LatentStep& task, const int16_t* symbols,
                                          const int32_t* values, int32_t* out, int64_t first, int64_t last) {
  const int64_t half = task.channels / 2;
  for (int64_t pixel = first; pixel < last; ++pixel) {
    const int64_t begin = first_of(task, pixel), other = half - begin;
    const int16_t *mean = means_of(task, pixel) + begin, *own_symbols = symbols + pixel * half;
    const int32_t* exponent = task.exponent + begin;
    int32_t* own_out = out + pixel * task.channels;
    for (int64_t c = 0; c < half; ++c) {
      own_out[begin + c] = value_of(own_symbols[c], mean[c], exponent[c]);
    }
    if (values == nullptr) {
      std::fill_n(own_out + other, half, 0);
    } else {
      std::copy_n(values + pixel * task.channels + other, half, own_out + other);
    }
  }
}

AICR_VECTOR_CLONES void latent_dequantise_run(const LatentStep& task, const int32_t* values, float* out,
                                              int64_t first, int64_t last) {
  for (int64_t pixel = first; pixel < last; ++pixel) {
    const int32_t* own = values + pixel * task.channels;
    float* own_out = out + pixel * task.channels;
    if (task.step == nullptr) {
      for (int64_t c = 0; c < task.channels; ++c)
        own_out[c] = static_cast<float>(own[c] * unit_of(task.exponent[c]));
    } else {
      const int16_t* step = task.step + pixel * task.step_channels;
      for (int64_t c = 0; c < task.channels; ++c) {
        own_out[c] = static_cast<float>(own[c] * unit_of(task.exponent[c]) * quantiser_step(step[c]));
      }
    }
  }
}

}  // namespace aicr
