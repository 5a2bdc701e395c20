// What can be wrong with the bytes of a stream. The binding turns each kind into the Python error of its
// name.
#pragma once

#include <stdexcept>
#include <string>

namespace aicr {

enum class StreamErrorKind {
  kTruncated,  // the bytes end before the symbols do, or go on after them
  kChecksum,   // everything could be read, but the symbols are not those that were written
  kFormat,     // a field holds a value no encoder writes
};

class StreamError : public std::runtime_error {
 public:
  StreamError(StreamErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  StreamErrorKind kind() const { return kind_; }

 private:
  StreamErrorKind kind_;
};

}  // namespace aicr
