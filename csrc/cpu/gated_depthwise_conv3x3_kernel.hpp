// The compute interface of gated_depthwise_conv3x3 on the CPU. No torch here; gated_depthwise_conv3x3.cpp
// calls it.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/pieces.hpp"

namespace aicr {

struct GatedDepthwiseShape {
  MapShape map;  // of x
  bool gelu;     // of the first half, before it multiplies the second

  int64_t out_channels() const { return map.channels / 2; }
};

// Terms of an output: nine taps by row and column, and the bias.
constexpr int64_t kDepthwiseTaps = 9, kDepthwiseTerms = 10;

// weight [channels][9] and bias [channels] (or null) as the loops read them: [10][channels] for channels-last
// maps, [channels][10] for planes.
template <typename Acc>
std::vector<Acc> gated_depthwise_terms(const MapShape& map, const Acc* weight, const Acc* bias);

// Number of pieces the work falls into: a function of the shape only, so that no result depends on the
// threads.
int64_t gated_depthwise_pieces(const GatedDepthwiseShape& shape);

// Pieces first <= i < last.
// T, Acc: (float, float), (BFloat16, float), (Half, float), (double, double).
template <typename T, typename Acc>
void gated_depthwise_run(const GatedDepthwiseShape& shape, const T* x, const Acc* terms, T* out,
                         int64_t first, int64_t last);

// The same with AVX-512, T and float; false where processor, layout or number of channels is not for it.
template <typename T>
bool gated_depthwise_avx512(const GatedDepthwiseShape& shape, const PiecePlan& plan, const T* x,
                            const float* terms, T* out, int64_t first, int64_t last);

}  // namespace aicr
