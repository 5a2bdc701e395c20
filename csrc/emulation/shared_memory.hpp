// The shared memory of the block that runs.
#pragma once

#include <cstddef>

namespace aicr::emulation {

constexpr unsigned char kGarbage = 0xcd;

class SharedMemory {
 public:
  // `size` bytes of dynamic shared memory, and behind them some that nobody may write.
  explicit SharedMemory(size_t size);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Garbage everywhere, in static arrays too, as a new block finds it.
  void fill();
  unsigned char* dynamic() const { return dynamic_; }
  bool holds(const void* at, size_t bytes) const;
  // Whether something was written behind the end.
  bool overrun() const;

 private:
  unsigned char* dynamic_;
  size_t size_;
  unsigned char*
      fixed_;  // the variables of this thread that the library has: the static arrays of all kernels
  size_t fixed_size_;
};

}  // namespace aicr::emulation
