// Decoding and encoding with every instruction set of the processor, which must agree in all they do.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/rans_decoder.hpp"
#include "common/rans_encoder.hpp"
#include "common/rans_kernels.hpp"
#include "common/rans_stream.hpp"
#include "common/stream_error.hpp"

namespace aicr::fuzz {

using Tables = std::shared_ptr<const TableSet>;
using Indices = std::vector<std::vector<uint8_t>>;
using Symbols = std::vector<std::vector<int16_t>>;
using Bytes = std::vector<uint8_t>;

// A finding.
[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "finding: %s\n", what.c_str());
  std::abort();
}

inline void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

inline std::vector<const RansKernels*> all_kernels() {
  std::vector<const RansKernels*> all;
  for (const std::string& name : available_kernels()) {
    select_kernels(name);
    all.push_back(&active_kernels());
  }
  return all;
}

// How decoding ended: `error` is empty if there are symbols.
struct Outcome {
  std::string error;
  Symbols symbols;

  bool operator==(const Outcome& other) const {
    return error == other.error && (!error.empty() || symbols == other.symbols);
  }
};

inline std::string text_of(const StreamError& error) {
  return std::to_string(static_cast<int>(error.kind())) + " " + error.what();
}

// A stream that was found damaged stays so.
template <typename Call>
void require_final(const Call& call) {
  try {
    call();
  } catch (const StreamError& error) {
    require(error.kind() == StreamErrorKind::kFormat, "a decoder that has failed gives another error later");
    return;
  }
  fail("a decoder goes on after an error");
}

// Errors of another type than the two that are documented end the run.
inline Outcome decode_with(const RansKernels& kernels, const Bytes& stream, const Indices& indices,
                           const Tables& tables) {
  Outcome outcome;
  try {
    RansDecoder decoder(stream.data(), stream.size(), kernels);
    for (const std::vector<uint8_t>& index : indices) {
      outcome.symbols.emplace_back(index.size());
      try {
        decoder.pop(index.data(), index.size(), *tables, outcome.symbols.back().data());
      } catch (const StreamError& error) {
        require_final([&] { decoder.pop(nullptr, 0, *tables, nullptr); });
        require_final([&] { decoder.finish(); });
        throw;
      }
    }
    decoder.finish();
  } catch (const StreamError& error) {
    outcome.error = text_of(error);
  } catch (const std::invalid_argument& error) {
    outcome.error = std::string("argument: ") + error.what();
  }
  return outcome;
}

// The same as the torch operators do it: the stream lies in memory of just its size, and stops between steps
// are plain numbers.
inline Outcome step_with(const RansKernels& kernels, const Bytes& stream, const Indices& indices,
                         const Tables& tables) {
  Outcome outcome;
  const size_t size = stream.size();
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[size]);
  std::copy(stream.begin(), stream.end(), exact.get());
  try {
    StreamState state = open_stream(exact.get(), 0, size);
    for (size_t s = 0; s < indices.size() && state.fault == StreamFault::kNone; ++s) {
      require(is_safe(state, static_cast<int64_t>(size)), "a decoder leaves a state that it would not take");
      outcome.symbols.emplace_back(indices[s].size());
      std::vector<int16_t>& symbols = outcome.symbols.back();
      step_stream(exact.get(), size, state, indices[s].data(), symbols.size(), *tables, symbols.data(),
                  kernels);
    }
    const StreamFault fault = end_stream(exact.get(), state);
    if (fault != StreamFault::kNone) throw StreamError(fault);
  } catch (const StreamError& error) {
    outcome.error = text_of(error);
  } catch (const std::invalid_argument& error) {
    outcome.error = std::string("argument: ") + error.what();
  }
  return outcome;
}

inline Outcome decode(const Bytes& stream, const Indices& indices, const Tables& tables) {
  static const std::vector<const RansKernels*> all = all_kernels();
  const Outcome first = decode_with(*all[0], stream, indices, tables);
  const auto compare = [&](const Outcome& other, const std::string& name) {
    if (other == first) return;
    fail(std::string("scalar: '") + first.error + "', " + name + ": '" + other.error + "'" +
         (other.error == first.error ? ", other symbols" : ""));
  };
  for (const RansKernels* kernels : all) {
    compare(decode_with(*kernels, stream, indices, tables), kernels->name);
    compare(step_with(*kernels, stream, indices, tables), std::string(kernels->name) + " in steps");
  }
  return first;
}

inline Bytes encode(int lanes, const Symbols& symbols, const Indices& indices, const Tables& tables) {
  static const std::vector<const RansKernels*> all = all_kernels();
  Bytes first;
  for (const RansKernels* kernels : all) {
    RansEncoder encoder(lanes, *kernels);
    for (size_t s = 0; s < indices.size(); ++s) {
      encoder.push(symbols[s].data(), indices[s].data(), indices[s].size(), tables);
    }
    Bytes bytes = encoder.finish();
    if (kernels == all[0]) {
      first = std::move(bytes);
    } else if (bytes != first) {
      fail(std::string("scalar and ") + kernels->name + " write different streams");
    }
  }
  return first;
}

}  // namespace aicr::fuzz
