// 1x1 convolutions of a channels-last bfloat16 map, or of a norm of it, on pointers. No torch here.
//
// Only processors with AVX512_BF16 have the products that the tiles consist of.
#pragma once

#include <cstdint>

namespace aicr {

constexpr int64_t kPointwiseLanes = 16;  // outputs of one vector
// With fewer channels a pixel does not fill the vectors of the norm.
constexpr int64_t kLeastNormedChannels = 32;

// A convolution. Its weights are packed, and its biases go on with zeros to the end of the last vector.
struct PointwiseProduct {
  const uint32_t* weight;
  const float* bias;
  uint16_t* out;  // dense: pictures x pixels x outputs
  int64_t outputs;
};

// One convolution or two of the same map, whose norm needs dense pixels.
struct PointwiseTask {
  const uint16_t* x;
  int64_t pictures, pixels, channels;
  int64_t picture_step, pixel_step;      // values from one to the next in x
  const float *norm_weight, *norm_bias;  // null: no norm
  bool subtract_mean;
  float eps;
  PointwiseProduct products[2];
  int count;

  // Pixels whose normalised values stay in the first cache beside the weights of a tile: whole tiles.
  int64_t block() const { return channels <= 128 ? 96 : channels <= 256 ? 48 : 24; }
  int64_t blocks() const { return (pixels + block() - 1) / block(); }  // of one picture
  int64_t pieces() const { return pictures * blocks(); }
};

// Number of pairs in packed weights.
int64_t pointwise_packed(int64_t channels, int64_t outputs);

// From [outputs][channels] to, for each column of tiles, [channels / 2][outputs of the column][2], with zeros
// for what there is not.
void pack_pointwise(const uint16_t* weight, int64_t channels, int64_t outputs, uint32_t* packed);

// Pieces first <= i < last. Every result is the bias plus the products of channel pairs in their order, in
// float32, rounded once: the bits depend neither on the pieces nor on the place of a pixel.
void pointwise_tiles_avx512(const PointwiseTask& task, int64_t first, int64_t last);

// Whether this processor has the products, but not those of AMX, with which torch's convolutions are faster.
bool has_pointwise_tiles();

}  // namespace aicr
