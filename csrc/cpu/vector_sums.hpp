// The sums of several vectors at a time, by transposition in registers.
#pragma once

#include <utility>

#include "cpu/vectors.hpp"

namespace aicr {

// Lane i of a + b, where each of the two consists of neighbours in `left` and `right`: pairs of lanes within
// 16 bytes (kWithin), or pairs of 16 bytes. The sums of `left` come before those of `right`, in the former
// case in each 16 bytes.
template <bool kWithin, int kBytes, int... kLane>
AICR_INLINE void add_neighbours(const typename Vectors<kBytes>::Float& left,
                                const typename Vectors<kBytes>::Float& right,
                                std::integer_sequence<int, kLane...>, typename Vectors<kBytes>::Float& sums) {
  using V = Vectors<kBytes>;
  typename V::Float a, b;
  if constexpr (kWithin) {
    a = V::template shuffled<(kLane / 4 * 4 + kLane % 2 * 2 + kLane % 4 / 2 * V::kLanes)...>(left, right);
    b = V::template shuffled<(kLane / 4 * 4 + kLane % 2 * 2 + 1 + kLane % 4 / 2 * V::kLanes)...>(left, right);
  } else {
    a = V::template shuffled<(kLane / 4 * 8 + kLane % 4)...>(left, right);
    b = V::template shuffled<(kLane / 4 * 8 + 4 + kLane % 4)...>(left, right);
  }
  sums = a + b;
}

// Lane i of `sums` becomes the sum of the lanes of vectors[i], for as many vectors as one has lanes.
template <int kBytes, int kCount = Vectors<kBytes>::kLanes>
AICR_INLINE void sum_each(const typename Vectors<kBytes>::Float* vectors,
                          typename Vectors<kBytes>::Float& sums) {
  if constexpr (kCount == 1) {
    sums = *vectors;
  } else {
    typename Vectors<kBytes>::Float left, right;
    sum_each<kBytes, kCount / 2>(vectors, left);
    sum_each<kBytes, kCount / 2>(vectors + kCount / 2, right);
    add_neighbours<(kCount <= 4), kBytes>(left, right,
                                          std::make_integer_sequence<int, Vectors<kBytes>::kLanes>(), sums);
  }
}

}  // namespace aicr
