// How loops over feature maps are cut.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace aicr {

constexpr int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Channels-last weights are laid out [K][tile], repeated for as many pixels as a tile holds: loops over tiles
// are long enough to be good vector code even where the channels are few. A plane has one weight per tap, and
// one tile.
constexpr int64_t kTileValues = 256;

inline int64_t tile_values(int64_t channels) {
  return channels * std::max<int64_t>(1, kTileValues / channels);
}

// [channels][taps] in that order.
template <typename Acc>
std::vector<Acc> tiled_weights(const Acc* weight, int64_t taps, int64_t channels) {
  const int64_t tile = tile_values(channels);
  std::vector<Acc> tiled(taps * tile);
  for (int64_t i = 0; i < tile; ++i) {
    for (int64_t k = 0; k < taps; ++k) tiled[k * tile + i] = weight[i % channels * taps + k];
  }
  return tiled;
}

}  // namespace aicr
