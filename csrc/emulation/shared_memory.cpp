#include "emulation/shared_memory.hpp"

#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace aicr::emulation {
namespace {

constexpr size_t kAlignment = 128, kFence = 256;

struct Span {
  unsigned char* begin;
  size_t size;
};

thread_local volatile char in_the_span;

// The thread's copy of all `static thread_local` variables of this library. Nothing else in it may be one.
Span thread_variables() {
#if defined(__SANITIZE_ADDRESS__)
  return {nullptr, 0};  // static arrays are ordinary variables then
#else
  in_the_span = 1;  // they exist from the first use on
  Span found{nullptr, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* library, size_t, void* result) {
        for (int i = 0; i < library->dlpi_phnum; ++i) {
          if (library->dlpi_phdr[i].p_type != PT_TLS || library->dlpi_tls_data == nullptr) continue;
          const Span span{static_cast<unsigned char*>(library->dlpi_tls_data), library->dlpi_phdr[i].p_memsz};
          const auto offset =
              reinterpret_cast<uintptr_t>(&in_the_span) - reinterpret_cast<uintptr_t>(span.begin);
          if (offset >= span.size) continue;
          *static_cast<Span*>(result) = span;
          return 1;
        }
        return 0;
      },
      &found);
  return found;
#endif
}

}  // namespace

SharedMemory::SharedMemory(size_t size) : size_(size) {
  const size_t room = (size + kFence + kAlignment - 1) / kAlignment * kAlignment;
  dynamic_ = static_cast<unsigned char*>(aligned_alloc(kAlignment, room));
  if (dynamic_ == nullptr) throw std::bad_alloc();
  memset(dynamic_ + size_, kGarbage, kFence);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(dynamic_ + size_, room - size_);
#endif
  const Span span = thread_variables();
  fixed_ = span.begin;
  fixed_size_ = span.size;
}

SharedMemory::~SharedMemory() {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(dynamic_, size_ + kFence);
#endif
  free(dynamic_);
}

void SharedMemory::fill() {
  if (size_ != 0) memset(dynamic_, kGarbage, size_);
  if (fixed_size_ != 0) memset(fixed_, kGarbage, fixed_size_);
}

bool SharedMemory::holds(const void* at, size_t bytes) const {
  const auto lies_in = [&](const unsigned char* begin, size_t size) {
    const auto offset = reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(begin);
    return offset < size && size - offset >= bytes;
  };
#if defined(__SANITIZE_ADDRESS__)
  (void)lies_in;
  return true;  // it cannot be told where static arrays are
#else
  return lies_in(dynamic_, size_) || lies_in(fixed_, fixed_size_);
#endif
}

bool SharedMemory::overrun() const {
#if !defined(__SANITIZE_ADDRESS__)
  for (size_t i = 0; i < kFence; ++i) {
    if (dynamic_[size_ + i] != kGarbage) return true;
  }
#endif
  return false;
}

}  // namespace aicr::emulation
