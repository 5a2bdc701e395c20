// CRC-32C by a warp. A remainder is a polynomial of which bit 31 is the number and bit 0 that of x^31.
//
// Of 128 symbols each lane has four in a row, 8 bytes. While such pieces follow one another, each lane has a
// strand of its own: its remainder moves on by what the other lanes have, 248 bytes, and takes up its next 8.
// Put together, a strand moves on by what lies behind it.
#pragma once

#include <cstdint>

#include "cuda/rans_warp.cuh"

namespace aicr {

constexpr uint32_t kCrcPolynomial = 0x82F63B78u;
constexpr int kStrideBytes = 248;

AICR_HOST_DEVICE constexpr uint32_t crc_times_x(uint32_t remainder) {
  return (remainder >> 1) ^ ((remainder & 1) != 0 ? kCrcPolynomial : 0);
}

// x to the power of `bits`.
AICR_HOST_DEVICE constexpr uint32_t crc_power(int bits) {
  uint32_t power = 1u << 31;
  for (int i = 0; i < bits; ++i) power = crc_times_x(power);
  return power;
}

__device__ inline uint32_t crc_product(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int bit = 31; bit >= 0; --bit) {
    if ((a >> bit & 1) != 0) product ^= b;
    b = crc_times_x(b);
  }
  return product;
}

// The remainder, `symbols` < 128 further on.
__device__ inline uint32_t crc_further(uint32_t remainder, int symbols) {
  constexpr uint32_t kPowers[7] = {crc_power(16),  crc_power(32),  crc_power(64),  crc_power(128),
                                   crc_power(256), crc_power(512), crc_power(1024)};
#pragma unroll
  for (int i = 0; i < 7; ++i) {
    const uint32_t power = kPowers[i];
    if ((symbols >> i & 1) != 0) remainder = crc_product(remainder, power);
  }
  return remainder;
}

// The four bytes of x, each looked up in its table; the lowest one in the first or, unless `rising`, the
// last.
__device__ __forceinline__ uint32_t crc_look_up(const uint32_t* tables, uint32_t x, bool rising) {
  uint32_t sum = 0;
#pragma unroll
  for (unsigned k = 0; k < 4; ++k) {
    sum ^= __ldg(tables + 256 * (rising ? k : 3 - k) + byte_of(x, k));
  }
  return sum;
}

class WarpChecksum {
 public:
  __device__ WarpChecksum(const RansTablesCuda& tables, uint32_t crc, int lane)
      : crc_(registered(&tables.crc[0][0])), remainder_(~crc), lane_(lane) {}

  // The next 128 symbols, of which this lane has the four from 4 * lane on, each in two bytes.
  __device__ __forceinline__ void add(uint2 four) {
    if (!running_) {
      strand_ = lane_ == 0 ? remainder_ : 0;
      running_ = true;
    } else {
      strand_ = crc_look_up(crc_ + kStrideAt, strand_, true);
    }
    strand_ = crc_look_up(crc_, strand_ ^ four.x, false);
    strand_ = crc_look_up(crc_, strand_ ^ four.y, false);
  }

  // The next `count` < 128.
  __device__ void add(uint2 four, int count) {
    put_together();
    uint32_t own = lane_ == 0 ? remainder_ : 0;
    const int mine = max(0, min(4, count - 4 * lane_));
    for (int byte = 0; byte < 2 * mine; ++byte) {
      const uint32_t next = (byte < 4 ? four.x : four.y) >> 8 * (byte & 3);
      own = (own >> 8) ^ __ldg(crc_ + ((own ^ next) & 255));
    }
    if (count > 0) join(mine > 0 ? crc_further(own, count - 4 * lane_ - mine) : 0);
  }

  // Of all symbols so far, in every lane.
  __device__ uint32_t value() {
    put_together();
    return ~remainder_;
  }

 private:
  __device__ void join(uint32_t part) { remainder_ = __reduce_xor_sync(kAll, part); }

  __device__ void put_together() {
    if (!running_) return;
    running_ = false;
    join(crc_further(strand_, 4 * (31 - lane_)));
  }

  // RansTablesCuda::stride follows RansTablesCuda::crc.
  static constexpr int kStrideAt = 4 * 256;

  const uint32_t* crc_;
  uint32_t remainder_;
  uint32_t strand_ = 0;
  bool running_ = false;
  int lane_;
};

}  // namespace aicr
