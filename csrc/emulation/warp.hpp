// The built-in functions of CUDA by which threads wait for one another.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "emulation/arithmetic.hpp"
#include "emulation/block.hpp"

#define AICR_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(AICR_PLACE) {
  aicr::emulation::meet(0, {file, line});
}
inline int __syncthreads_count(int predicate, AICR_PLACE) {
  return aicr::emulation::meet(predicate != 0, {file, line});
}
inline int __syncthreads_or(int predicate, AICR_PLACE) {
  return aicr::emulation::meet(predicate != 0, {file, line}) != 0;
}
inline int __syncthreads_and(int predicate, AICR_PLACE) {
  return aicr::emulation::meet(predicate == 0, {file, line}) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, AICR_PLACE) {
  aicr::emulation::meet_lanes("__syncwarp", mask, nullptr, [](void* const*, uint32_t) {}, {file, line});
}

namespace aicr::emulation {

struct Vote {
  bool predicate;
  uint32_t result;
};

// The lanes for which the predicate holds.
inline uint32_t vote(const char* name, unsigned mask, int predicate, Place place) {
  Vote own{predicate != 0, 0};
  const Combine combine = [](void* const* data, uint32_t lanes) {
    uint32_t set = 0;
    for (int lane = 0; lane < 32; ++lane) {
      if (data[lane] != nullptr && static_cast<const Vote*>(data[lane])->predicate) set |= 1u << lane;
    }
    for (int lane = 0; lane < 32; ++lane) {
      if ((lanes >> lane & 1) != 0) static_cast<Vote*>(data[lane])->result = set;
    }
  };
  meet_lanes(name, mask, &own, combine, place);
  return own.result;
}

template <typename T>
struct Shuffle {
  T value;
  int source;
  T result;
};

// The value of lane `source`, which has to take part.
template <typename T>
T shuffle(const char* name, unsigned mask, T value, int source, Place place) {
  Shuffle<T> own{value, source, value};
  const Combine combine = [](void* const* data, uint32_t) {
    for (int lane = 0; lane < 32; ++lane) {
      auto* to = static_cast<Shuffle<T>*>(data[lane]);
      if (to == nullptr) continue;
      const auto* from = static_cast<const Shuffle<T>*>(data[to->source]);
      if (from == nullptr) {
        fail("lane " + std::to_string(lane) + " reads from lane " + std::to_string(to->source) +
             ", which is not in the mask");
      }
      to->result = from->value;
    }
  };
  meet_lanes(name, mask, &own, combine, place);
  return own.result;
}

// First lane of this one's part of the warp, and the last.
inline int part_begin(int width) {
  return own_lane() & ~(width - 1);
}
inline int part_end(int width) {
  return part_begin(width) + width - 1;
}

}  // namespace aicr::emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, AICR_PLACE) {
  namespace e = aicr::emulation;
  return e::shuffle("__shfl_sync", mask, value, e::part_begin(width) | (source & (width - 1)), {file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, AICR_PLACE) {
  namespace e = aicr::emulation;
  const int source = e::own_lane() ^ lanes;
  return e::shuffle("__shfl_xor_sync", mask, value, source > e::part_end(width) ? e::own_lane() : source,
                    {file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, AICR_PLACE) {
  namespace e = aicr::emulation;
  const int source = e::own_lane() - static_cast<int>(lanes);
  return e::shuffle("__shfl_up_sync", mask, value, source < e::part_begin(width) ? e::own_lane() : source,
                    {file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, AICR_PLACE) {
  namespace e = aicr::emulation;
  const int source = e::own_lane() + static_cast<int>(lanes);
  return e::shuffle("__shfl_down_sync", mask, value, source > e::part_end(width) ? e::own_lane() : source,
                    {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, AICR_PLACE) {
  return aicr::emulation::vote("__ballot_sync", mask, predicate, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, AICR_PLACE) {
  return aicr::emulation::vote("__any_sync", mask, predicate, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, AICR_PLACE) {
  return aicr::emulation::vote("__all_sync", mask, predicate, {file, line}) == mask;
}

namespace aicr::emulation {

struct Reduction {
  unsigned value;
  unsigned result;
};

template <typename Join>
unsigned reduce(const char* name, unsigned mask, unsigned value, Place place) {
  Reduction own{value, 0};
  const Combine combine = [](void* const* data, uint32_t lanes) {
    bool any = false;
    unsigned total = 0;
    for (int lane = 0; lane < 32; ++lane) {
      if ((lanes >> lane & 1) == 0) continue;
      const unsigned next = static_cast<const Reduction*>(data[lane])->value;
      total = any ? Join()(total, next) : next;
      any = true;
    }
    for (int lane = 0; lane < 32; ++lane) {
      if ((lanes >> lane & 1) != 0) static_cast<Reduction*>(data[lane])->result = total;
    }
  };
  meet_lanes(name, mask, &own, combine, place);
  return own.result;
}

struct Smaller {
  unsigned operator()(unsigned a, unsigned b) const { return min(a, b); }
};
struct Larger {
  unsigned operator()(unsigned a, unsigned b) const { return max(a, b); }
};

}  // namespace aicr::emulation

// Of unsigned numbers, from sm_80 on.
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, AICR_PLACE) {
  return aicr::emulation::reduce<std::plus<unsigned>>("__reduce_add_sync", mask, value, {file, line});
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, AICR_PLACE) {
  return aicr::emulation::reduce<std::bit_xor<unsigned>>("__reduce_xor_sync", mask, value, {file, line});
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, AICR_PLACE) {
  return aicr::emulation::reduce<aicr::emulation::Smaller>("__reduce_min_sync", mask, value, {file, line});
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, AICR_PLACE) {
  return aicr::emulation::reduce<aicr::emulation::Larger>("__reduce_max_sync", mask, value, {file, line});
}

#undef AICR_PLACE
