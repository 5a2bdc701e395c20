// 1x1 convolutions of a channels-last map in bfloat16 or float32, or of a norm of it, on pointers. No torch
// here.
//
// The tiles need AVX-512, those of bfloat16 also AVX512_BF16, which has their products.
#pragma once

#include <cstdint>

namespace aicr {

constexpr int64_t kPointwiseLanes = 16;  // outputs of one vector
// With fewer channels a pixel does not fill the vectors of the norm.
constexpr int64_t kLeastNormedChannels = 32;

// How a map's values are multiplied: bfloat16 two channels at a time, float32 one by one.
template <typename Value>
struct PointwiseNumbers;
template <>
struct PointwiseNumbers<uint16_t> {  // the bits of a bfloat16
  using Weight = uint32_t;           // of two channels
  static constexpr int64_t kTogether = 2;
};
template <>
struct PointwiseNumbers<float> {
  using Weight = float;
  static constexpr int64_t kTogether = 1;
};

// A convolution. Its weights are packed, and its biases go on with zeros to the end of the last vector.
template <typename Value>
struct PointwiseProduct {
  const typename PointwiseNumbers<Value>::Weight* weight;
  const float* bias;
  Value* out;  // the pixels of a picture lie side by side
  int64_t outputs;
  int64_t picture_step;        // values from one picture to the next in out
  const Value* added;          // to the products, before they are rounded; null: nothing. May be out.
  int64_t added_picture_step;  // its pixels lie side by side, too

  Value* at(int64_t picture, int64_t pixel) const { return out + picture * picture_step + pixel * outputs; }
};

// One convolution or two of the same map, whose norm needs dense pixels. Only one by itself has something
// added.
template <typename Value>
struct PointwiseTask {
  const Value* x;
  int64_t pictures, pixels, channels;
  int64_t picture_step, pixel_step;      // values from one to the next in x
  const float *norm_weight, *norm_bias;  // null: no norm
  bool subtract_mean;
  float eps;
  PointwiseProduct<Value> products[2];
  int count;

  // Pixels whose normalised values stay in the first cache beside the weights of a tile: whole tiles.
  int64_t block() const {
    const int64_t bytes = channels * static_cast<int64_t>(sizeof(Value));
    return bytes <= 256 ? 96 : bytes <= 512 ? 48 : 24;
  }
  int64_t blocks() const { return (pixels + block() - 1) / block(); }  // of one picture
  int64_t pieces() const { return pictures * blocks(); }
};

// Number of packed weights.
template <typename Value>
int64_t pointwise_packed(int64_t channels, int64_t outputs);

// From [outputs][channels] to, for each column of tiles, [channels / together][outputs of the
// column][together], with zeros for what there is not.
template <typename Value>
void pack_pointwise(const Value* weight, int64_t channels, int64_t outputs,
                    typename PointwiseNumbers<Value>::Weight* packed);

// Pieces first <= i < last. Every result is the bias plus the products of channels, or of pairs of them, in
// their order, plus what is added, in float32, rounded once: the bits depend neither on the pieces nor on the
// place of a pixel.
template <typename Value>
void pointwise_tiles_avx512(const PointwiseTask<Value>& task, int64_t first, int64_t last);

// Whether this processor has AVX-512; for bfloat16 its products, but not those of AMX, with which torch's
// convolutions are faster.
bool has_pointwise_tiles(bool bfloat16);

}  // namespace aicr
