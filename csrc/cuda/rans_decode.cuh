// The launch interface of decoding on CUDA. No torch here; rans_ops.cpp calls it. Arguments are those of
// aicr_ext/ops/rans.py, all dense.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/rans_state.hpp"
#include "cuda/rans_tables.cuh"

namespace aicr {

struct RansStepCuda {
  StreamState* rows;
  int64_t streams;
  const uint8_t* data;
  int64_t size;
  const uint8_t* index;
  int64_t count;
  const RansTablesCuda* tables;
  const int64_t* splits;
  int16_t* symbols;
};

// Each queues its kernel on the stream. What is wrong with numbers that only the device knows becomes the
// fault of a row.
cudaError_t launch_rans_begin(const uint8_t* data, int64_t size, const int64_t* ends, int64_t streams,
                              StreamState* rows, cudaStream_t stream);
cudaError_t launch_rans_step(const RansStepCuda& task, cudaStream_t stream);
cudaError_t launch_rans_end(const StreamState* rows, int64_t streams, const uint8_t* data, int64_t size,
                            int32_t* faults, cudaStream_t stream);

}  // namespace aicr
