// The same bits as another type.
#pragma once

#include <cstring>

#include "cpu/vector_clones.hpp"

namespace aicr {

template <typename To, typename From>
AICR_INLINE To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace aicr
