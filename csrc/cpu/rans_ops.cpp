// Host side of the entropy coder on the CPU: checks and threads. A stream is coded by one thread.
#include "cpu/rans_ops.hpp"

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include <torch/csrc/stable/ops.h>

#include "common/rans_encoder.hpp"
#include "common/rans_stream.hpp"
#include "cpu/rans_table_cache.hpp"
#include "host/rans_check.hpp"

namespace aicr {
namespace {

using torch::stable::contiguous;

std::shared_ptr<const TableSet> tables_of(const char* op, const Tensor& tables) {
  const Tensor dense = contiguous(tables);
  try {
    return cached_tables(dense.const_data_ptr<int32_t>(), static_cast<size_t>(dense.numel()));
  } catch (const std::invalid_argument& error) {
    refuse(op, ": ", error.what());
  }
}

// Where each stream's part of a segment of `count` symbols begins, and the end of the last.
std::vector<int64_t> read_splits(const char* op, const Tensor& splits, int64_t streams, int64_t count) {
  const Tensor dense = contiguous(splits);
  const int64_t* const at = dense.const_data_ptr<int64_t>();
  bool rising = dense.numel() == streams + 1 && at[0] == 0 && at[streams] == count;
  for (int64_t s = 0; rising && s < streams; ++s) rising = at[s] <= at[s + 1];
  if (!rising) refuse_splits(op, streams, count);
  return std::vector<int64_t>(at, at + dense.numel());
}

// Calls work(stream) for each stream, by as many threads as torch has. Of several errors the first stream's
// is thrown.
template <typename Work>
void for_each_stream(int64_t streams, const Work& work) {
  std::vector<std::string> errors(static_cast<size_t>(streams));
  torch::stable::parallel_for(0, streams, 1, [&](int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) {
      try {
        work(s);
      } catch (const std::exception& error) {  // must not leave a thread of torch
        errors[static_cast<size_t>(s)] = error.what();
      }
    }
  });
  for (int64_t s = 0; s < streams; ++s) {
    if (const std::string& error = errors[static_cast<size_t>(s)]; !error.empty()) refuse(error);
  }
}

// A state is a tensor that anybody may make and write to.
void check_rows(const char* op, const StreamState* rows, int64_t streams, int64_t size) {
  for (int64_t s = 0; s < streams; ++s) {
    const auto fault = static_cast<int64_t>(rows[s].fault);
    const bool known = 0 <= fault && fault < static_cast<int64_t>(kStreamFaultCount);
    if (!known || (fault == 0 && !is_safe(rows[s], size))) {
      refuse(op, ": state of stream ", s, " is not one that rans_decode_begin makes of this data");
    }
  }
}

}  // namespace

std::tuple<Tensor, Tensor> rans_encode_cpu(std::vector<Tensor> symbols, std::vector<Tensor> index,
                                           std::vector<Tensor> tables, std::vector<Tensor> splits,
                                           int64_t lanes) {
  const char* op = "rans_encode";
  const size_t segments = symbols.size();
  const int64_t streams = check_encode(symbols, index, tables, splits, lanes);
  std::vector<std::vector<int64_t>> cuts;
  std::vector<std::shared_ptr<const TableSet>> sets;
  for (size_t g = 0; g < segments; ++g) {
    symbols[g] = contiguous(symbols[g]);
    index[g] = contiguous(index[g]);
    cuts.push_back(read_splits(op, splits[g], streams, symbols[g].numel()));
    sets.push_back(tables_of(op, tables[g]));
  }
  std::vector<std::vector<uint8_t>> coded(static_cast<size_t>(streams));
  for_each_stream(streams, [&](int64_t s) {
    RansEncoder encoder(static_cast<int>(lanes));
    for (size_t g = 0; g < segments; ++g) {
      const int64_t first = cuts[g][s], count = cuts[g][s + 1] - first;
      try {
        encoder.push(symbols[g].const_data_ptr<int16_t>() + first, index[g].const_data_ptr<uint8_t>() + first,
                     static_cast<size_t>(count), sets[g]);
      } catch (const std::invalid_argument& error) {
        refuse(op, ": ", error.what(), " of stream ", s, " in segment ", g);
      }
    }
    coded[static_cast<size_t>(s)] = encoder.finish();
  });
  Tensor ends = torch::stable::empty({streams}, ScalarType::Long);
  int64_t* const end = ends.mutable_data_ptr<int64_t>();
  int64_t total = 0;
  for (int64_t s = 0; s < streams; ++s) {
    end[s] = total += static_cast<int64_t>(coded[static_cast<size_t>(s)].size());
  }
  Tensor data = torch::stable::empty({total}, ScalarType::Byte);
  auto* at = data.mutable_data_ptr<uint8_t>();
  for (const std::vector<uint8_t>& stream : coded) {
    std::memcpy(at, stream.data(), stream.size());
    at += stream.size();
  }
  return {data, ends};
}

Tensor rans_decode_begin_cpu(Tensor data, Tensor ends) {
  const char* op = "rans_decode_begin";
  check_vector(op, "data", data, ScalarType::Byte, data);
  check_vector(op, "ends", ends, ScalarType::Long, data);
  const Tensor dense = contiguous(data), dense_ends = contiguous(ends);
  const auto* const bytes = dense.const_data_ptr<uint8_t>();
  const int64_t* const end = dense_ends.const_data_ptr<int64_t>();
  const int64_t streams = ends.numel();
  for (int64_t s = 0, before = 0; s < streams; before = end[s++]) {
    if (end[s] < before || end[s] > data.numel()) {
      refuse(op, ": ends must rise and be at most the length of data, ", data.numel(), ", got ", end[s],
             " after ", before);
    }
  }
  Tensor state = torch::stable::empty({streams, kStateColumns}, ScalarType::Int);
  auto* const rows = static_cast<StreamState*>(state.mutable_data_ptr());
  for (int64_t s = 0; s < streams; ++s) {
    try {
      rows[s] = open_stream(bytes, static_cast<size_t>(s > 0 ? end[s - 1] : 0), static_cast<size_t>(end[s]));
    } catch (const StreamError& error) {
      rows[s] = StreamState{};
      rows[s].fault = error.fault();
    }
  }
  return state;
}

Tensor rans_decode_step_cpu(Tensor state, Tensor data, Tensor index, Tensor tables, Tensor splits) {
  const char* op = "rans_decode_step";
  check_state(op, state);
  check_state_place(op, state);
  check_vector(op, "data", data, ScalarType::Byte, state);
  check_segment(op, index, tables, splits, state);
  const int64_t streams = state.size(0);
  const Tensor dense = contiguous(data), dense_index = contiguous(index);
  const std::vector<int64_t> cuts = read_splits(op, splits, streams, index.numel());
  const std::shared_ptr<const TableSet> set = tables_of(op, tables);
  auto* const rows = static_cast<StreamState*>(state.mutable_data_ptr());
  check_rows(op, rows, streams, data.numel());
  const auto* const named = dense_index.const_data_ptr<uint8_t>();
  try {  // before any stream has gone on
    check_index(named, static_cast<size_t>(index.numel()), set->tables());
  } catch (const std::invalid_argument& error) {
    refuse(op, ": ", error.what());
  }
  Tensor out = torch::stable::empty({index.numel()}, ScalarType::Short);
  auto* const symbols = out.mutable_data_ptr<int16_t>();
  for_each_stream(streams, [&](int64_t s) {
    const int64_t first = cuts[s], count = cuts[s + 1] - first;
    step_stream(dense.const_data_ptr<uint8_t>(), static_cast<size_t>(data.numel()), rows[s], named + first,
                static_cast<size_t>(count), *set, symbols + first);
  });
  return out;
}

Tensor rans_decode_end_cpu(Tensor state, Tensor data) {
  const char* op = "rans_decode_end";
  check_state(op, state);
  check_state_place(op, state);
  check_vector(op, "data", data, ScalarType::Byte, state);
  const Tensor dense = contiguous(data);
  const int64_t streams = state.size(0);
  const auto* const rows = static_cast<const StreamState*>(state.const_data_ptr());
  check_rows(op, rows, streams, data.numel());
  Tensor faults = torch::stable::empty({streams}, ScalarType::Int);
  auto* const fault = faults.mutable_data_ptr<int32_t>();
  for (int64_t s = 0; s < streams; ++s) {
    fault[s] = static_cast<int32_t>(end_stream(dense.const_data_ptr<uint8_t>(), rows[s]));
  }
  return faults;
}

}  // namespace aicr
