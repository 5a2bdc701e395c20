// The compute interface of depthwise_conv3x3 and gated_depthwise_conv3x3 on the CPU. No torch here;
// gated_depthwise_conv3x3.cpp calls it.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/pieces.hpp"

namespace aicr {

// What follows the convolution: nothing, or the product of the halves of its channels, the first of them as
// it is or after GELU.
enum class DepthwiseGate { kNone, kProduct, kGelu };

struct GatedDepthwiseShape {
  MapShape map;  // of x
  DepthwiseGate gate;

  int64_t parts() const { return gate == DepthwiseGate::kNone ? 1 : 2; }
  int64_t out_channels() const { return map.channels / parts(); }
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

// RUN(gate) with it as a constant. A macro, because what is to be compiled for several instruction sets has
// to be inlined into the function that is.
#define AICR_FOR_GATE(shape, RUN)                                            \
  if ((shape).gate == DepthwiseGate::kNone) RUN(DepthwiseGate::kNone);       \
  if ((shape).gate == DepthwiseGate::kProduct) RUN(DepthwiseGate::kProduct); \
  if ((shape).gate == DepthwiseGate::kGelu) RUN(DepthwiseGate::kGelu);
