// Vectors of 32 bytes, of which the compiler makes the best for every instruction set (vectors.hpp has some
// of the length of its registers). No torch here.
#pragma once

#include <cstdint>

namespace aicr {

// 32 bytes of values at any address. Sums are written with them where compilers do not find the vector code
// for several pixels at a time by themselves.
template <typename Acc>
struct Vector32 {
  typedef Acc type __attribute__((vector_size(32), aligned(sizeof(Acc)), may_alias));
  static constexpr int64_t kValues = 32 / sizeof(Acc);
};

}  // namespace aicr
