// Any bytes as a stream. Every instruction set ends it with the same symbols or the same error, and a stream
// that decodes is the one that the encoder writes for its symbols: there is no second one.
#include "fuzz/coding.hpp"
#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aicr::fuzz;
  Input input(data, size);
  const Tables tables = read_tables(input).make();
  const Indices indices = read_indices(input, tables->tables());
  const Bytes stream(input.rest(), input.rest() + input.left());
  const Outcome outcome = decode(stream, indices, tables);
  if (outcome.error.empty()) {
    require(encode(stream[0], outcome.symbols, indices, tables) == stream,
            "a stream decodes, but the encoder writes another one for its symbols");
  }
  return 0;
}
