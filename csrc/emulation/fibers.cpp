#include "emulation/fibers.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "emulation/block.hpp"

// AICR_UCONTEXT asks for what other processors have, to test it.
#if !defined(__x86_64__) || defined(AICR_UCONTEXT)
#define AICR_SWITCH_BY_UCONTEXT
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace aicr::emulation {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStack = 256 * 1024;  // its frames are several times as large
#else
constexpr size_t kStack = 64 * 1024;
#endif

#if !defined(AICR_SWITCH_BY_UCONTEXT)

using Context = void*;  // the stack pointer; all else that a function must preserve lies on the stack

extern "C" void aicr_switch_stack(Context* from, Context to) __attribute__((visibility("hidden")));
asm(R"(
.text
.type aicr_switch_stack, @function
aicr_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size aicr_switch_stack, .-aicr_switch_stack
)");

void switch_context(Context& from, Context& to) {
  aicr_switch_stack(&from, to);
}

void prepare(Context& context, char* stack, void (*entry)()) {
  auto* top = reinterpret_cast<uintptr_t*>(stack + kStack);
  *--top = 0;  // the entry finds the stack aligned as after a call, and never returns
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
  context = top;
}

#else

using Context = ucontext_t;

void switch_context(Context& from, Context& to) {
  swapcontext(&from, &to);
}

void prepare(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

#endif

struct Fiber {
  Context context;
  char* stack = nullptr;
  bool begun = false;
  void* shadow = nullptr;  // AddressSanitizer's
};

Fiber fibers[kMostThreads];
Context resumer;
int running = -1;
void (*running_body)(int);

#if defined(__SANITIZE_ADDRESS__)
// AddressSanitizer has to know on which stack the program is.
void* resumer_shadow;
const void* resumer_stack;
size_t resumer_size;

void before_resuming(Fiber& fiber) {
  __sanitizer_start_switch_fiber(&resumer_shadow, fiber.stack, kStack);
}
void after_resuming() {
  __sanitizer_finish_switch_fiber(resumer_shadow, nullptr, nullptr);
}
void before_leaving(Fiber& fiber, bool for_ever) {
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fiber.shadow, resumer_stack, resumer_size);
}
void after_entering(Fiber& fiber) {
  __sanitizer_finish_switch_fiber(fiber.shadow, &resumer_stack, &resumer_size);
}
void clean_stack(char* stack) {  // of what a fiber that was dropped has left
  __asan_unpoison_memory_region(stack, kStack);
}
#else
void before_resuming(Fiber&) {}
void after_resuming() {}
void before_leaving(Fiber&, bool) {}
void after_entering(Fiber&) {}
void clean_stack(char*) {}
#endif

// A page that nobody may touch lies below each stack, so that one too deep ends the program.
char* new_stack() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page + kStack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  char* stack = static_cast<char*>(memory) + page;
  if (mprotect(stack, kStack, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  return stack;
}

void enter() {
  Fiber& fiber = fibers[running];
  after_entering(fiber);
  running_body(running);
  fiber.begun = false;
  before_leaving(fiber, true);
  switch_context(fiber.context, resumer);
  __builtin_unreachable();
}

}  // namespace

bool resume_fiber(int number, void (*body)(int)) {
  Fiber& fiber = fibers[number];
  if (!fiber.begun) {
    if (fiber.stack == nullptr) fiber.stack = new_stack();
    fiber.begun = true;
    fiber.shadow = nullptr;
    prepare(fiber.context, fiber.stack, &enter);
  }
  running = number;
  running_body = body;
  before_resuming(fiber);
  switch_context(resumer, fiber.context);
  after_resuming();
  return !fiber.begun;
}

void pause_fiber() {
  Fiber& fiber = fibers[running];
  before_leaving(fiber, false);
  switch_context(fiber.context, resumer);
  after_entering(fiber);
}

void drop_fibers() {
  for (Fiber& fiber : fibers) {
    if (fiber.begun) clean_stack(fiber.stack);
    fiber.begun = false;
  }
}

}  // namespace aicr::emulation
