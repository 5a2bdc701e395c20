// How layer_norm2d and its derivative cut maps into blocks.
#pragma once

#include <cstdint>

#include "cuda/warp.cuh"

namespace aicr {

constexpr int kRowThreads = 256;                                         // of kernels for channels-last maps
constexpr int kPlaneThreads = 512, kPlaneWarps = kPlaneThreads / kWarp;  // and for planes
constexpr int kMostSteps = 8;
constexpr int64_t kEnoughBlocks = 1024;  // so many blocks busy any device

// `lanes` of a warp share a pixel, and a block takes kRowThreads / lanes pixels `steps` times.
struct RowTiling {
  int lanes, steps;
  int64_t blocks;
};

inline RowTiling make_row_tiling(int64_t vectors, int64_t pixels) {
  RowTiling tiling{1, kMostSteps, 0};
  while (tiling.lanes < kWarp && tiling.lanes < vectors) tiling.lanes *= 2;
  const int64_t groups = kRowThreads / tiling.lanes;
  const auto blocks_of = [&] { return (pixels + tiling.steps * groups - 1) / (tiling.steps * groups); };
  while (tiling.steps > 1 && blocks_of() < kEnoughBlocks) tiling.steps /= 2;
  tiling.blocks = blocks_of();
  return tiling;
}

// A block has a warp's width of pixels of one picture, of which there are `parts`.
struct PlaneTiling {
  int64_t parts, blocks;
};

inline PlaneTiling make_plane_tiling(int64_t batch, int64_t pixels) {
  const int64_t parts = (pixels + kWarp - 1) / kWarp;
  return {parts, batch * parts};
}

}  // namespace aicr
