// A block of threads on the host: they run in turns, each until it has to wait for others or ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include <cuda_runtime_api.h>

namespace aicr::emulation {

// What a block of the GPUs aimed at may have.
constexpr unsigned kMostThreads = 1024;
constexpr size_t kMostShared = 227 * 1024;

// Where in the source a kernel called something: a default argument tells the caller's line.
struct Place {
  const char* file;
  int line;
};

// Runs the kernel, named as its launch names it, in every thread of every block. cudaErrorLaunchFailure if it
// breaks one of the rules; cudaGetErrorString then tells which, and where.
cudaError_t launch(const char* kernel, dim3 grid, dim3 block, size_t shared,
                   const std::function<void()>& body);

// What follows is for kernels, within a launch.

// Ends the launch with this error of the running thread.
[[noreturn]] void fail(const std::string& what);

// All threads of the block meet here. `value` is added up over them, and is 0 or 1.
int meet(int value, Place place);

// The lanes of `mask` meet here; the last one calls `combine` on what they brought: data[lane], null for
// those that are not in the mask. Every lane's data stay where they are until it has returned.
using Combine = void (*)(void* const* data, uint32_t mask);
void meet_lanes(const char* name, uint32_t mask, void* data, Combine combine, Place place);

int own_lane();

unsigned char* dynamic_shared();
// Fails unless these bytes are shared memory of the block, aligned to `alignment`.
void check_shared(const char* name, const void* at, size_t bytes, size_t alignment);

// Copies that nobody may see before they are waited for: until then the target holds garbage. `from` may be
// null: zeros.
void begin_copy(void* to, const void* from, size_t bytes);
void commit_copies();
void wait_for_copies(int groups_left);

}  // namespace aicr::emulation
