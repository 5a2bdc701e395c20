// The launch interface of what adds up the sums that blocks leave of their parts of a map. No torch here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace aicr {

// Two results, whose values lie one after the other in every part.
struct SumPartsCuda {
  const float* parts;  // [count][first_values + second_values]
  int64_t count;
  float* first;
  float* second;  // or null
  int64_t first_values, second_values;
};

// Queues the kernel on the stream; of no parts the sums are 0. cudaErrorInvalidConfiguration if the values
// need more than 2^31 - 1 blocks.
cudaError_t launch_sum_parts(const SumPartsCuda& arguments, cudaStream_t stream);

}  // namespace aicr
