// Bits in a byte buffer, least significant bit first; the unused bits of the last byte are zero.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/stream_error.hpp"

namespace aicr {

class BitWriter {
 public:
  // A place to go back to.
  struct Mark {
    size_t size;
    uint64_t pending;
    int filled;
  };

  // Where the writer is, for those who put many bits at a time into memory that is there: reserve, put,
  // advance.
  struct Cursor {
    uint8_t* at;
    uint64_t pending;  // the filled < 8 newest bits
    int filled;

    // 0 <= count <= 56, value < 2^count.
    void put(uint64_t value, int count) {
      pending |= value << filled;
      filled += count;
      std::memcpy(at, &pending, 8);  // little-endian, see rans_format.hpp
      const int whole = filled >> 3;
      at += whole;
      pending >>= 8 * whole;
      filled &= 7;
    }
  };

  // A cursor that may put so many bytes.
  Cursor reserve(size_t bytes) {
    if (buffer_.size() - size_ < bytes + 8) buffer_.resize(2 * buffer_.size() + bytes + 256);
    return {buffer_.data() + size_, pending_, filled_};
  }

  void advance(const Cursor& cursor) {
    size_ = static_cast<size_t>(cursor.at - buffer_.data());
    pending_ = cursor.pending;
    filled_ = cursor.filled;
  }

  // 0 <= count <= 56, value < 2^count.
  void put(uint64_t value, int count) {
    Cursor cursor = reserve(8);
    cursor.put(value, count);
    advance(cursor);
  }

  Mark mark() const { return {size_, pending_, filled_}; }

  // Forgets everything put since the mark was taken.
  void rewind(const Mark& mark) {
    size_ = mark.size;
    pending_ = mark.pending;
    filled_ = mark.filled;
  }

  // The bytes so far, the last one padded with zero bits. Writing may go on afterwards.
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> all(buffer_.data(), buffer_.data() + size_);
    if (filled_ > 0) all.push_back(static_cast<uint8_t>(pending_));
    return all;
  }

 private:
  std::vector<uint8_t> buffer_;
  size_t size_ = 0;       // whole bytes; what lies behind them in buffer_ is scratch
  uint64_t pending_ = 0;  // the filled_ < 8 newest bits
  int filled_ = 0;
};

class BitReader {
 public:
  BitReader() = default;
  // Eight bytes behind the section must be readable; their content does not matter.
  BitReader(const uint8_t* data, size_t size) : data_(data), size_bits_(8 * static_cast<uint64_t>(size)) {}

  // 0 <= count <= 56.
  uint32_t get(int count) {
    if (!has(static_cast<uint64_t>(count))) {
      throw StreamError(StreamFault::kBits);
    }
    const uint64_t value = window(position_) & ((uint64_t{1} << count) - 1);
    position_ += static_cast<uint64_t>(count);
    return static_cast<uint32_t>(value);
  }

  // For readers that take many bits at a time: 57 or more bits from a place on, without a check; and, once it
  // is known that there were that many, the step over them.
  uint64_t window(uint64_t position) const {
    uint64_t bits;
    std::memcpy(&bits, byte_at(position), 8);
    return bits >> (position & 7);
  }
  const uint8_t* byte_at(uint64_t position) const { return data_ + (position >> 3); }
  uint64_t position() const { return position_; }
  bool has(uint64_t count) const { return size_bits_ - position_ >= count; }
  void skip(uint64_t count) { position_ += count; }

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
