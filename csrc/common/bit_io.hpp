// Bits in a byte buffer, least significant bit first; the unused bits of the last byte are zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/stream_error.hpp"

namespace aicr {

class BitWriter {
 public:
  // 0 <= count <= 32, value < 2^count.
  void put(uint32_t value, int count) {
    pending_ |= static_cast<uint64_t>(value) << filled_;
    filled_ += count;
    if (filled_ >= 32) {
      const auto whole = static_cast<uint32_t>(pending_);
      const auto* first = reinterpret_cast<const uint8_t*>(&whole);  // little-endian, see rans_format.hpp
      bytes_.insert(bytes_.end(), first, first + 4);
      pending_ >>= 32;
      filled_ -= 32;
    }
  }

  // The bytes so far, the last one padded with zero bits. Writing may go on afterwards.
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> all = bytes_;
    for (int bit = 0; bit < filled_; bit += 8) all.push_back(static_cast<uint8_t>(pending_ >> bit));
    return all;
  }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t pending_ = 0;  // the filled_ < 32 newest bits
  int filled_ = 0;
};

class BitReader {
 public:
  BitReader() = default;
  BitReader(const uint8_t* data, size_t size) : data_(data), size_bits_(8 * static_cast<uint64_t>(size)) {}

  // 0 <= count <= 24.
  uint32_t get(int count) {
    if (size_bits_ - position_ < static_cast<uint64_t>(count)) {
      throw StreamError(StreamErrorKind::kTruncated, "the coded stream ran out of raw or escape bits");
    }
    const uint64_t first = position_ >> 3, size = size_bits_ >> 3;
    uint32_t window = 0;
    if (first + 4 <= size) {
      std::memcpy(&window, data_ + first, 4);
    } else {
      for (uint64_t i = 0; i < size - first; ++i)
        window |= static_cast<uint32_t>(data_[first + i]) << (8 * i);
    }
    const uint32_t value = (window >> (position_ & 7)) & ((1u << count) - 1);
    position_ += count;
    return value;
  }

  // Whether all that is left is the zero padding of the last byte.
  bool at_end() const {
    if (size_bits_ - position_ >= 8) return false;
    return position_ == size_bits_ || (data_[position_ >> 3] >> (position_ & 7)) == 0;
  }

 private:
  const uint8_t* data_ = nullptr;
  uint64_t size_bits_ = 0;
  uint64_t position_ = 0;
};

}  // namespace aicr
