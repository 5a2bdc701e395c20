// What can be wrong with the bytes of a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace aicr {

enum class StreamErrorKind {
  kTruncated,  // the bytes end before the symbols do, or go on after them
  kChecksum,   // everything could be read, but the symbols are not those that were written
  kFormat,     // a field holds a value no encoder writes
  kArgument,   // the caller's mistake, found where he cannot be told at once
};

// Numbers instead of texts, so that a decoder on any device can leave them where its caller looks for them.
enum class StreamFault : int32_t {
  kNone,
  kHeaderCut,
  kSections,
  kWords,
  kBits,
  kSurplus,
  kLanes,
  kLength,
  kFirstState,
  kEscape,
  kSymbol,
  kFailedBefore,
  kLastState,
  kSymbols,
  kEnds,
  kState,
  kSplits,
  kTables,
  kIndex,
};

struct StreamFaultInfo {
  StreamErrorKind kind;
  const char* message;
};

// By number; the first stands for no fault.
constexpr StreamFaultInfo kStreamFaults[] = {
    {StreamErrorKind::kFormat, ""},
    {StreamErrorKind::kTruncated, "the header of the coded stream is cut short"},
    {StreamErrorKind::kTruncated,
     "the words and raw bits of the coded stream take more bytes than there are"},
    {StreamErrorKind::kTruncated, "the coded stream ran out of words"},
    {StreamErrorKind::kTruncated, "the coded stream ran out of raw or escape bits"},
    {StreamErrorKind::kTruncated, "the coded stream goes on after its last symbol"},
    {StreamErrorKind::kFormat, "the number of lanes of the coded stream is neither 8 nor 32"},
    {StreamErrorKind::kFormat, "a length in the header of the coded stream is not a shortest varint"},
    {StreamErrorKind::kFormat, "a lane of the coded stream starts outside the state range"},
    {StreamErrorKind::kFormat, "an escape of the coded stream is longer than any can be"},
    {StreamErrorKind::kFormat, "a symbol of the coded stream does not fit 16 bits"},
    {StreamErrorKind::kFormat, "the coded stream was found damaged before"},
    {StreamErrorKind::kChecksum,
     "a lane of the coded stream does not end in a state that an encoder begins with"},
    {StreamErrorKind::kChecksum, "the decoded symbols do not match their CRC-32C"},
    {StreamErrorKind::kArgument, "ends must rise and be at most the length of data"},
    {StreamErrorKind::kArgument, "state is not one that rans_decode_begin makes of this data"},
    {StreamErrorKind::kArgument,
     "splits must be positions that rise from 0 to the length of the segment, one more than streams"},
    {StreamErrorKind::kArgument, "tables must be the numbers of a table set, as TableSet.tensor gives them"},
    {StreamErrorKind::kArgument, "index must be below the number of tables"},
};
constexpr size_t kStreamFaultCount = sizeof(kStreamFaults) / sizeof(kStreamFaults[0]);
static_assert(kStreamFaultCount == static_cast<size_t>(StreamFault::kIndex) + 1, "one text for each fault");

constexpr const StreamFaultInfo& info_of(StreamFault fault) {
  return kStreamFaults[static_cast<size_t>(fault)];
}

class StreamError : public std::runtime_error {
 public:
  explicit StreamError(StreamFault fault) : std::runtime_error(info_of(fault).message), fault_(fault) {}
  StreamFault fault() const { return fault_; }
  StreamErrorKind kind() const { return info_of(fault_).kind; }

 private:
  StreamFault fault_;
};

}  // namespace aicr
