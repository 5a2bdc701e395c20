// Any numbers as a table set: refused with the documented error exactly if a rule of docs/bitstream.md is
// broken, otherwise every slot of every table is one place of one entry, and every entry can be coded.
#include <array>
#include <stdexcept>

#include "common/rans_scalar.hpp"
#include "fuzz/coding.hpp"
#include "fuzz/input.hpp"

namespace {

using namespace aicr;
using namespace aicr::fuzz;

int32_t read_offset(Input& input, int32_t size) {
  switch (input.u8() % 3) {
    case 0:
      return static_cast<int16_t>(input.u16());
    case 1:
      return static_cast<int32_t>(input.u32());
    default:  // near the last one that is allowed
      return 32769 - size + static_cast<int8_t>(input.u8()) % 4;
  }
}

// One row, past its size of numbers that must not matter.
void read_row(Input& input, int32_t size, size_t width, int32_t* row) {
  std::fill_n(row, width, -1);
  const auto used = static_cast<int>(std::clamp<int64_t>(size, 0, static_cast<int64_t>(width)));
  const uint8_t mode = input.u8();
  if (used == 0) return;
  if (mode % 4 == 0) {
    for (int k = 0; k < used; ++k) row[k] = static_cast<int32_t>(input.u32());
  } else if (mode % 4 == 1) {  // the last one makes the sum right; often it cannot
    int32_t left = kProbabilityOne;
    for (int k = 0; k + 1 < used; ++k) left -= row[k] = 1 + input.u16() % 1024;
    row[used - 1] = left;
  } else {
    const uint8_t style = input.u8(), step = input.u8();
    const std::vector<int32_t> good = make_row(used, style, step);
    std::copy(good.begin(), good.end(), row);
    if (mode % 4 == 3) {
      int32_t& one = row[input.u8() % used];
      one += static_cast<int8_t>(input.u8()) % 3;
    }
  }
}

TableArrays read_anything(Input& input) {
  TableArrays arrays;
  const uint8_t head = input.u8();
  const size_t tables = head < 250 ? head % 5 : head + 5;  // few, or about as many as there may be
  arrays.width = input.u8() % 80;
  arrays.frequencies.assign(tables * arrays.width, 0);
  for (size_t t = 0; t < tables; ++t) {
    arrays.sizes.push_back(static_cast<int8_t>(input.u8()));
    arrays.offsets.push_back(read_offset(input, arrays.sizes[t]));
    const uint8_t shift = input.u8();
    arrays.shifts.push_back(shift < 240 ? shift % 16 : shift);
    read_row(input, arrays.sizes[t], arrays.width, arrays.frequencies.data() + t * arrays.width);
  }
  return arrays;
}

// The rules, as the specification has them.
bool allowed(const TableArrays& arrays) {
  if (arrays.tables() < 1 || arrays.tables() > 256 || arrays.width > 64) return false;
  for (size_t t = 0; t < arrays.tables(); ++t) {
    const int64_t size = arrays.sizes[t], first = arrays.offsets[t];
    if (size == 0) continue;
    if (size < 2 || size > static_cast<int64_t>(arrays.width) || arrays.shifts[t] > 12) return false;
    if (first < -32768 || first + size - 2 > 32767) return false;
    int64_t sum = 0;
    for (int64_t k = 0; k < size; ++k) {
      const int64_t frequency = arrays.frequencies[t * arrays.width + k];
      if (frequency < 1) return false;
      sum += frequency;
    }
    if (sum != 16384) return false;
  }
  return true;
}

// Decodes one symbol from each slot, with a state so high that no word is due: entry and rank can be told
// from it.
void check_slots(const TableArrays& arrays, const TableSet& tables, size_t t) {
  const auto size = static_cast<size_t>(arrays.sizes[t]);
  const int32_t* row = arrays.frequencies.data() + t * arrays.width;
  std::vector<std::vector<bool>> seen;
  for (size_t k = 0; k < size; ++k) seen.emplace_back(row[k]);
  for (uint32_t slot = 0; slot < kProbabilityOne; ++slot) {
    constexpr uint32_t kHigh = 1u << 16;
    std::array<uint32_t, kWideLanes> states{kHigh << kProbabilityBits | slot};
    const uint8_t index = static_cast<uint8_t>(t), no_words[2] = {};
    const uint8_t* word = no_words;
    uint8_t entry = 0;
    decode_group_scalar<kNarrowLanes, false>(tables.decode_table(), &index, 1, states, word, &entry);
    const size_t k = entry == kEscapeMark ? size - 1 : entry;
    require(word == no_words && k < size, "a slot leads to an entry that is not there");
    const int64_t rank = static_cast<int64_t>(states[0]) - static_cast<int64_t>(row[k]) * kHigh;
    require(rank >= 0 && rank < row[k] && !seen[k][rank], "a slot has no rank of its own");
    seen[k][rank] = true;
  }
}

// Every entry with its lowest and highest raw bits, one beyond either end, and the ends of int16.
void add_symbols(const TableInfo& info, uint8_t t, std::vector<int16_t>& symbols,
                 std::vector<uint8_t>& index) {
  const int32_t scale = 1 << info.shift, half = scale / 2;
  const auto add = [&](int32_t symbol) {
    symbols.push_back(info.skip ? int16_t{0} : static_cast<int16_t>(std::clamp(symbol, -32768, 32767)));
    index.push_back(t);
  };
  for (int32_t q = info.offset - 1; q <= info.offset + info.regular; ++q) {
    add(q * scale - half);
    add(q * scale - half + scale - 1);
  }
  add(-32768);
  add(32767);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const TableArrays arrays = read_anything(input);
  Tables tables;
  try {
    tables = arrays.make();
  } catch (const std::invalid_argument& error) {
    if (allowed(arrays)) fail(std::string("good tables are refused: ") + error.what());
    return 0;
  }
  require(allowed(arrays), "bad tables are taken");
  Symbols symbols(1);
  Indices indices(1);
  for (size_t t = 0; t < arrays.tables(); ++t) {
    add_symbols(tables->info(static_cast<uint8_t>(t)), static_cast<uint8_t>(t), symbols[0], indices[0]);
    if (t < 2 && arrays.sizes[t] > 0) check_slots(arrays, *tables, t);  // all of them would take too long
  }
  for (const int lanes : {kNarrowLanes, kWideLanes}) {
    const Outcome outcome = decode(encode(lanes, symbols, indices, tables), indices, tables);
    if (!outcome.error.empty()) fail("a stream of the encoder is refused: " + outcome.error);
    require(outcome.symbols == symbols, "other symbols come back");
  }
  return 0;
}
