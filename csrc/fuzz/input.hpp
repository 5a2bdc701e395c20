// The input of a fuzz target as numbers, and the tables and indices that it stands for: any bytes are a valid
// choice of both, so that no run is wasted on arguments the coder refuses. python_tests/fuzz_inputs.py reads
// the same layout.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/rans_format.hpp"
#include "common/rans_tables.hpp"

namespace aicr::fuzz {

// Reads forward; behind the end there are zeros.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  uint8_t u8() { return at_ == end_ ? 0 : *at_++; }
  uint16_t u16() {
    const uint8_t low = u8();
    return static_cast<uint16_t>(low | u8() << 8);
  }
  uint32_t u32() {
    const uint32_t low = u16();
    return low | static_cast<uint32_t>(u16()) << 16;
  }
  const uint8_t* rest() const { return at_; }
  size_t left() const { return static_cast<size_t>(end_ - at_); }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

// Frequencies of `size` entries that sum to 2^14: weights that rise and wrap around, or everything on one
// entry.
inline std::vector<int32_t> make_row(int size, uint8_t style, uint8_t step) {
  std::vector<int32_t> row(static_cast<size_t>(size), 1);
  const int32_t spare = static_cast<int32_t>(kProbabilityOne) - size;
  if (style >= 128) {
    row[style % size] += spare;
    return row;
  }
  int32_t sum = 0, given = 0;
  const auto weight = [&](int k) { return 1 + (k * style + step) % 256; };
  for (int k = 0; k < size; ++k) sum += weight(k);
  for (int k = 0; k < size; ++k) {
    const int32_t share = weight(k) * spare / sum;
    row[k] += share;
    given += share;
  }
  row[step % size] += spare - given;
  return row;
}

// What the constructor of TableSet takes.
struct TableArrays {
  size_t width = kMaxEntries;
  std::vector<int32_t> frequencies;  // [tables][width]
  std::vector<int32_t> sizes;
  std::vector<int32_t> offsets;
  std::vector<uint8_t> shifts;

  size_t tables() const { return sizes.size(); }
  std::shared_ptr<const TableSet> make() const {
    return std::make_shared<const TableSet>(frequencies.data(), width, sizes.data(), offsets.data(),
                                            shifts.data(), tables());
  }
};

// Enough tables for indices to need their highest bit.
constexpr size_t kMany = 136;

// One byte - 1 to 4 tables; bit 6: all of them such that vector code can make symbols of entries; all other
// bits, so that it is rare, for it takes long: repeated until there are kMany - and six bytes a table: size
// (less than 2: a skip table), offset, shift, and two for the frequencies.
inline TableArrays read_tables(Input& input) {
  const uint8_t head = input.u8();
  const bool compact = head & 64;
  const size_t drawn = 1 + (head & 3), count = (head & 0xbc) == 0xbc ? kMany : drawn;
  TableArrays arrays;
  arrays.frequencies.assign(count * arrays.width, 0);
  for (size_t t = 0; t < count; ++t) {
    if (t >= drawn) {
      std::copy_n(arrays.frequencies.begin() + (t - drawn) * arrays.width, arrays.width,
                  arrays.frequencies.begin() + t * arrays.width);
      arrays.sizes.push_back(arrays.sizes[t - drawn]);
      arrays.offsets.push_back(arrays.offsets[t - drawn]);
      arrays.shifts.push_back(arrays.shifts[t - drawn]);
      continue;
    }
    const int size = input.u8() % (kMaxEntries + 1);
    const uint16_t offset = input.u16();
    const uint8_t shift = input.u8(), style = input.u8(), step = input.u8();
    const int32_t from = compact ? static_cast<int8_t>(offset) : static_cast<int16_t>(offset);
    arrays.sizes.push_back(size < 2 ? 0 : size);
    arrays.offsets.push_back(std::min(from, (compact ? 129 : 32769) - size));
    arrays.shifts.push_back(compact ? shift % 8 : shift % (kMaxShift + 1));
    if (size < 2) continue;
    const std::vector<int32_t> row = make_row(size, style, step);
    std::copy(row.begin(), row.end(), arrays.frequencies.begin() + t * arrays.width);
  }
  return arrays;
}

// One byte - 1 to 3 segments; bit 7: indices may name tables that are not there - and five a segment: number
// of symbols, first index, and by how many eighths it rises with each symbol.
inline std::vector<std::vector<uint8_t>> read_indices(Input& input, size_t tables) {
  const uint8_t head = input.u8();
  std::vector<std::vector<uint8_t>> segments(1 + (head & 127) % 3);
  for (std::vector<uint8_t>& index : segments) {
    index.resize(input.u16() % 1200);  // a decoder takes up 1024 at a time
    const uint8_t base = input.u8();
    const uint16_t stride = input.u16();
    for (size_t i = 0; i < index.size(); ++i) {
      const auto named = static_cast<uint8_t>(base + (i * stride >> 3));
      index[i] = head & 128 ? named : static_cast<uint8_t>(named % tables);
    }
  }
  return segments;
}

}  // namespace aicr::fuzz
