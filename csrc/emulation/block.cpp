#include "emulation/block.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "emulation/fibers.hpp"
#include "emulation/shared_memory.hpp"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace aicr::emulation {
namespace {

enum class State { kReady, kAtBarrier, kAtLanes, kEnded };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  int group;
};

struct Thread {
  State state;
  Place place;
  int value;  // brought to the barrier, and taken from it
  const char* lanes_name;
  uint32_t mask;
  int groups;  // of copies, that are complete
  std::vector<Copy> copies;
};

// Lanes of a warp that wait at one place for the rest of their mask.
struct Gathering {
  uint32_t mask, arrived;
  const char* name;
  Place place;
  void* data[32];
};

struct Failure {
  std::string what;
};

// All of it belongs to the one launch at a time that holds `launching`.
std::mutex launching;
Thread threads[kMostThreads];
std::vector<Gathering> gatherings[kMostThreads / 32];  // of each warp; those of one do not share lanes
unsigned thread_count;
unsigned current;
const std::function<void()>* kernel_body;
SharedMemory* shared_memory;
std::string failure;

uint64_t seed = [] {
  const char* text = getenv("AICR_EMULATION_SEED");
  return text != nullptr ? strtoull(text, nullptr, 10) : 1;
}();
std::map<std::string, long long> launches;
std::string last_message;
cudaError_t last_error = cudaSuccess;

uint3 coordinates(unsigned thread) {
  return {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

std::string text(uint3 at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

std::string text(Place place) {
  const char* slash = strrchr(place.file, '/');
  return std::string(slash != nullptr ? slash + 1 : place.file) + ":" + std::to_string(place.line);
}

bool same(const char* a, const char* b) {
  return a == b || strcmp(a, b) == 0;
}

bool same(Place a, Place b) {
  return a.line == b.line && same(a.file, b.file);
}

std::string doing(unsigned thread) {
  const Thread& t = threads[thread];
  switch (t.state) {
    case State::kAtBarrier:
      return "waits at __syncthreads, " + text(t.place);
    case State::kAtLanes:
      return "waits at " + std::string(t.lanes_name) + ", " + text(t.place);
    case State::kEnded:
      return "has ended";
    case State::kReady:
      break;
  }
  return "runs";
}

// "kernel" of "(space::kernel<T, 3>)"
std::string plain_name(const std::string& launched) {
  const size_t begin = launched.find_first_not_of("( :&");
  const std::string name = launched.substr(begin, launched.find_first_of("<) ", begin) - begin);
  const size_t space = name.rfind("::");
  return space == std::string::npos ? name : name.substr(space + 2);
}

void run_thread(int number) {
  Thread& thread = threads[number];
  try {
    (*kernel_body)();
    if (!thread.copies.empty()) fail("ends with copies to shared memory that it did not wait for");
  } catch (const Failure& error) {
    failure = "thread " + text(threadIdx) + " " + error.what;
  } catch (const std::exception& error) {
    failure = "thread " + text(threadIdx) + " threw " + error.what();
  }
  thread.state = State::kEnded;
}

// Where nobody can go on by himself, and `absent` has not come to the barrier of the first thread: one that
// waits, and one that does not do what it waits for.
std::pair<unsigned, unsigned> in_vain(unsigned absent) {
  unsigned waiting = 0;
  while (threads[waiting].state == State::kEnded) ++waiting;
  const Thread& first = threads[waiting];
  if (first.state == State::kAtBarrier) return {waiting, waiting == 0 ? absent : 0};
  const unsigned warp = waiting / 32 * 32;
  for (unsigned other = warp; other < std::min(warp + 32, thread_count); ++other) {
    const Thread& thread = threads[other];
    const bool together =
        thread.state == State::kAtLanes && thread.mask == first.mask && same(thread.place, first.place);
    if ((first.mask >> (other - warp) & 1) != 0 && !together) return {waiting, other};
  }
  return {waiting, absent};
}

// Nobody can go on by himself. Lets all go on from a barrier, or says what they wait for in vain.
bool open_barrier() {
  int sum = 0;
  for (unsigned t = 0; t < thread_count; ++t) {
    const bool arrived = threads[t].state == State::kAtBarrier && same(threads[t].place, threads[0].place);
    if (arrived) {
      sum += threads[t].value;
      continue;
    }
    const auto [waiting, other] = in_vain(t);
    failure = "thread " + text(coordinates(waiting)) + " " + doing(waiting) + ", while thread " +
              text(coordinates(other)) + " " + doing(other);
    return false;
  }
  for (unsigned t = 0; t < thread_count; ++t) {
    threads[t].value = sum;
    threads[t].state = State::kReady;
  }
  return true;
}

void run_block(std::mt19937_64& random) {
  shared_memory->fill();
  std::vector<unsigned> order(thread_count);
  for (unsigned t = 0; t < thread_count; ++t) {
    order[t] = t;
    threads[t].state = State::kReady;
    threads[t].groups = 0;
    threads[t].copies.clear();
  }
  for (auto& waiting : gatherings) waiting.clear();
  unsigned ended = 0;
  while (ended < thread_count) {
    if (seed != 0) std::shuffle(order.begin(), order.end(), random);
    bool ran = false;
    for (const unsigned t : order) {
      if (threads[t].state != State::kReady) continue;
      ran = true;
      current = t;
      threadIdx = coordinates(t);
      if (resume_fiber(static_cast<int>(t), &run_thread)) ++ended;
      if (!failure.empty()) return;
    }
    if (!ran && !open_barrier()) return;
  }
  if (shared_memory->overrun()) failure = "the block wrote behind the end of its dynamic shared memory";
}

cudaError_t refuse(cudaError_t error, const std::string& message) {
  last_message = message;
  last_error = error;
  return error;
}

// What the device would refuse to launch.
std::string bad_configuration(dim3 grid, dim3 block, size_t shared) {
  const auto threads_asked = uint64_t{block.x} * block.y * block.z;
  if (threads_asked == 0 || threads_asked > kMostThreads || block.z > 64) {
    return "a block must have 1 to 1024 threads, 64 along z at most, got (" + std::to_string(block.x) + ", " +
           std::to_string(block.y) + ", " + std::to_string(block.z) + ")";
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return "a grid must have 1 to 2^31 - 1 blocks along x, 1 to 65535 along y and z, got (" +
           std::to_string(grid.x) + ", " + std::to_string(grid.y) + ", " + std::to_string(grid.z) + ")";
  }
  if (shared > kMostShared) {
    return "a block has " + std::to_string(kMostShared) + " bytes of shared memory at most, got " +
           std::to_string(shared);
  }
  return "";
}

}  // namespace

cudaError_t launch(const char* launched, dim3 grid, dim3 block, size_t shared,
                   const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(launching);
  const std::string name = plain_name(launched), message = bad_configuration(grid, block, shared);
  if (!message.empty()) return refuse(cudaErrorInvalidConfiguration, "kernel " + name + ": " + message);
  ++launches[name];
  thread_count = block.x * block.y * block.z;
  kernel_body = &body;
  blockDim = block;
  gridDim = grid;
  failure.clear();
  SharedMemory memory(shared);
  shared_memory = &memory;
  std::mt19937_64 random(seed);
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        run_block(random);
        if (failure.empty()) continue;
        drop_fibers();
        return refuse(cudaErrorLaunchFailure,
                      "kernel " + name + ", block " + text(blockIdx) + ": " + failure);
      }
    }
  }
  return cudaSuccess;
}

void fail(const std::string& what) {
  throw Failure{what};
}

int meet(int value, Place place) {
  Thread& own = threads[current];
  own.state = State::kAtBarrier;
  own.place = place;
  own.value = value;
  pause_fiber();
  return own.value;
}

namespace {

// Fails unless those of the mask can still come here: the first one to arrive looks.
void expect_lanes(const char* name, uint32_t mask, Place place) {
  const unsigned lane = current % 32, warp = current - lane;
  const auto refuse_mask = [&](const std::string& why) {
    fail("calls " + std::string(name) + ", " + text(place) + ", with " + why);
  };
  if ((mask >> lane & 1) == 0) refuse_mask("a mask that lacks its own lane");
  for (unsigned other = 0; other < 32; ++other) {
    if ((mask >> other & 1) == 0 || other == lane) continue;
    const unsigned t = warp + other;
    if (t >= thread_count) {
      refuse_mask("a mask that names lane " + std::to_string(other) + ", which the block has not");
    }
    const Thread& thread = threads[t];
    if (thread.state == State::kReady) continue;
    // A lane that waits for lanes without this one may come later.
    if (thread.state == State::kAtLanes && (thread.mask >> lane & 1) == 0) continue;
    const bool other_mask = thread.state == State::kAtLanes && thread.mask != mask;
    refuse_mask("lane " + std::to_string(other) + " in the mask, which " + doing(t) +
                (other_mask ? " with another mask" : ""));
  }
}

}  // namespace

void meet_lanes(const char* name, uint32_t mask, void* data, Combine combine, Place place) {
  const unsigned self = current, lane = self % 32, warp = self - lane;
  std::vector<Gathering>& waiting = gatherings[warp / 32];
  size_t at = 0;
  while (at < waiting.size() &&
         !(waiting[at].mask == mask && same(waiting[at].name, name) && same(waiting[at].place, place))) {
    ++at;
  }
  if (at == waiting.size() || (mask >> lane & 1) == 0) {
    expect_lanes(name, mask, place);
    waiting.push_back({mask, 0, name, place, {}});
  }
  Gathering& own = waiting[at];
  own.arrived |= 1u << lane;
  own.data[lane] = data != nullptr ? data : &own;
  if (own.arrived != mask) {
    threads[self].state = State::kAtLanes;
    threads[self].lanes_name = name;
    threads[self].mask = mask;
    threads[self].place = place;
    pause_fiber();
    return;
  }
  combine(own.data, mask);
  waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(at));
  for (unsigned other = 0; other < 32; ++other) {
    if ((mask >> other & 1) != 0) threads[warp + other].state = State::kReady;
  }
}

int own_lane() {
  return static_cast<int>(current % 32);
}

unsigned char* dynamic_shared() {
  return shared_memory->dynamic();
}

void check_shared(const char* name, const void* at, size_t bytes, size_t alignment) {
  if (!shared_memory->holds(at, bytes)) fail(std::string(name) + ": the address is not in shared memory");
  if (reinterpret_cast<uintptr_t>(at) % alignment != 0) {
    fail(std::string(name) + ": the address in shared memory is no multiple of " + std::to_string(alignment));
  }
}

void begin_copy(void* to, const void* from, size_t bytes) {
  check_shared("copy_async", to, bytes, bytes);
  if (reinterpret_cast<uintptr_t>(from) % bytes != 0) {
    fail("copy_async: the address in global memory is no multiple of " + std::to_string(bytes));
  }
  memset(to, kGarbage, bytes);
  Thread& own = threads[current];
  own.copies.push_back({to, from, bytes, own.groups});
}

void commit_copies() {
  ++threads[current].groups;
}

void wait_for_copies(int groups_left) {
  Thread& own = threads[current];
  const auto done = [&](const Copy& copy) {
    if (copy.group >= own.groups - groups_left) return false;
    if (copy.from != nullptr) {
      memcpy(copy.to, copy.from, copy.bytes);
    } else {
      memset(copy.to, 0, copy.bytes);
    }
    return true;
  };
  own.copies.erase(std::remove_if(own.copies.begin(), own.copies.end(), done), own.copies.end());
}

}  // namespace aicr::emulation

const char* cudaGetErrorString(cudaError_t error) {
  namespace e = aicr::emulation;
  const std::lock_guard<std::mutex> lock(e::launching);
  if (error != cudaSuccess && error == e::last_error) return e::last_message.c_str();
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      break;
  }
  return "unspecified launch failure";
}

// What the tests ask for, through python_tests/emulation.py.
extern "C" {

// In which order threads take turns; 0: as they are numbered.
__attribute__((visibility("default"))) void aicr_emulation_seed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(aicr::emulation::launching);
  aicr::emulation::seed = seed;
}

// A line with name and number for each kernel launched so far. Valid until the next call.
__attribute__((visibility("default"))) const char* aicr_emulation_launches() {
  static std::string lines;
  const std::lock_guard<std::mutex> lock(aicr::emulation::launching);
  lines.clear();
  for (const auto& [name, count] : aicr::emulation::launches)
    lines += name + " " + std::to_string(count) + "\n";
  return lines.c_str();
}

}  // extern "C"
