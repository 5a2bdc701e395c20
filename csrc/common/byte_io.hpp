// Little-endian numbers and LEB128 lengths, with every read checked against the end of the buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/stream_error.hpp"

namespace aicr {

inline void put_u32(std::vector<uint8_t>& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

// Seven bits a byte, low bits first; the top bit of a byte says that another follows.
inline void put_varint(std::vector<uint8_t>& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

class ByteReader {
 public:
  ByteReader(const uint8_t* begin, const uint8_t* end) : cursor_(begin), end_(end) {}

  size_t left() const { return static_cast<size_t>(end_ - cursor_); }

  uint8_t u8() {
    if (cursor_ == end_) throw StreamError(StreamFault::kHeaderCut);
    return *cursor_++;
  }

  uint32_t u32() {
    uint32_t value = 0;
    for (int shift = 0; shift < 32; shift += 8) value |= static_cast<uint32_t>(u8()) << shift;
    return value;
  }

  // At most five bytes, and no needless zero bytes at the end: a length has one spelling only.
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 35; shift += 7) {
      const uint8_t byte = u8();
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) {
        if (byte == 0 && shift > 0) break;
        return value;
      }
    }
    throw StreamError(StreamFault::kLength);
  }

 private:
  const uint8_t* cursor_;
  const uint8_t* end_;
};

}  // namespace aicr
