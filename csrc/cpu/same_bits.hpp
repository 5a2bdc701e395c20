// The same bits as another type. Arguments are values: with references to them g++ 12 sees too late that a
// clamp is one, and repeats the division before it.
#pragma once

#include <cstring>

#include "cpu/vector_clones.hpp"

namespace aicr {

template <typename To, typename From>
AICR_INLINE To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace aicr
