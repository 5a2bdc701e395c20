// The decoder with bytes of its own: reads forward, stops and resumes between segments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/rans_kernels.hpp"
#include "common/rans_stream.hpp"
#include "common/rans_tables.hpp"
#include "common/stream_error.hpp"

namespace aicr {

class RansDecoder {
 public:
  // Copies the bytes, because kernels read some behind their end. Throws StreamError if the header or the
  // section lengths do not fit them.
  RansDecoder(const uint8_t* data, size_t size, const RansKernels& kernels = active_kernels())
      : kernels_(kernels), state_(open_stream(data, 0, size)) {
    bytes_.reserve(size + kReadPadding);
    bytes_.assign(data, data + size);
    bytes_.resize(size + kReadPadding);
  }

  RansDecoder(const RansDecoder&) = delete;
  RansDecoder& operator=(const RansDecoder&) = delete;

  // Decodes one segment of `count` symbols. A StreamError is final: every later call throws again.
  void pop(const uint8_t* index, size_t count, const TableSet& tables, int16_t* symbols) {
    RansReader(bytes_.data(), 0, state_, kernels_).pop(index, count, tables, symbols);
  }

  // To be called after the last pop. Throws StreamError unless the stream ends exactly here, as the encoder
  // left it.
  void finish() {
    if (state_.fault != StreamFault::kNone) throw StreamError(StreamFault::kFailedBefore);
    const StreamFault fault = RansReader(bytes_.data(), 0, state_, kernels_).end();
    if (fault != StreamFault::kNone) throw StreamError(fault);
  }

 private:
  const RansKernels& kernels_;
  std::vector<uint8_t> bytes_;
  StreamState state_;
};

}  // namespace aicr
