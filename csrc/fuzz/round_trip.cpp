// Any symbols, with any tables: what is encoded is what is decoded, and with one byte changed it is an error.
#include <algorithm>

#include "fuzz/coding.hpp"
#include "fuzz/input.hpp"

namespace {

using namespace aicr::fuzz;

// The rest of an input, over and over, a little different each time.
class Endless {
 public:
  explicit Endless(const Input& input) : data_(input.rest()), size_(input.left()) {}

  uint8_t u8() {
    if (size_ == 0) return 0;
    const auto value = static_cast<uint8_t>(data_[next_ % size_] + 17 * (next_ / size_));
    ++next_;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t next_ = 0;
};

// Most of the symbols lie within their table.
int16_t draw(Endless& source, const aicr::TableInfo& info) {
  if (info.skip) return 0;
  const uint8_t byte = source.u8();
  if (byte >= 240) {
    const uint8_t low = source.u8();
    return static_cast<int16_t>(low | source.u8() << 8);
  }
  const int32_t quotient = info.offset + byte % info.regular, scale = 1 << info.shift;
  const int32_t raw = info.shift > 0 ? (source.u8() * 37) % scale : 0;
  return static_cast<int16_t>(std::clamp(quotient * scale + raw - scale / 2, -32768, 32767));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const Tables tables = read_tables(input).make();
  Indices indices = read_indices(input, tables->tables());
  for (std::vector<uint8_t>& index : indices) {
    for (uint8_t& t : index) t = static_cast<uint8_t>(t % tables->tables());
  }
  const int lanes = input.u8() % 2 == 0 ? aicr::kNarrowLanes : aicr::kWideLanes;
  const size_t position = input.u16();
  const auto change = static_cast<uint8_t>(std::max<int>(1, input.u8()));
  Endless source(input);
  Symbols symbols;
  for (const std::vector<uint8_t>& index : indices) {
    symbols.emplace_back();
    for (const uint8_t t : index) symbols.back().push_back(draw(source, tables->info(t)));
  }
  Bytes stream = encode(lanes, symbols, indices, tables);
  const Outcome whole = decode(stream, indices, tables);
  if (!whole.error.empty()) fail("a stream of the encoder is refused: " + whole.error);
  require(whole.symbols == symbols, "other symbols come back");
  stream[position % stream.size()] ^= change;
  require(!decode(stream, indices, tables).error.empty(), "a changed byte goes unnoticed");
  return 0;
}
