// Vectors of values that the compiler makes the best of for every instruction set. No torch here.
#pragma once

#include <cstdint>

namespace aicr {

// 32 bytes of values at any address. Sums are written with them where compilers do not find the vector code
// for several pixels at a time by themselves.
template <typename Acc>
struct Vector {
  typedef Acc type __attribute__((vector_size(32), aligned(sizeof(Acc)), may_alias));
  static constexpr int64_t kValues = 32 / sizeof(Acc);
};

}  // namespace aicr
