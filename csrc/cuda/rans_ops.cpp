// Host side of the entropy coder on CUDA: checks, memory, launches. Decoding never waits for the device: what
// is wrong with numbers that only the device knows becomes the fault of a stream. Encoding waits once,
// because the size of its result is not known before.
#include "cuda/rans_ops.hpp"

#include <torch/csrc/stable/ops.h>

#include "cuda/rans_decode.cuh"
#include "cuda/rans_encode.cuh"
#include "host/cuda_stream.hpp"
#include "host/rans_check.hpp"

namespace aicr {
namespace {

using torch::stable::contiguous;
using torch::stable::new_empty;
using torch::stable::new_zeros;

// Up to so many streams are coded with 32 and 8 lanes at once where lanes go by size: they do not fill a
// device.
constexpr int64_t kTogetherUpTo = 512;

// Memory on the device of `like`, to be held as long as launches that use it are queued.
template <typename T>
T* pointer(Tensor& memory) {
  return static_cast<T*>(memory.mutable_data_ptr());
}
Tensor bytes(const Tensor& like, size_t size) {
  return new_empty(like, {static_cast<int64_t>(size)}, ScalarType::Byte);
}

Tensor device_tables(const char* op, const Tensor& tables, const RansSplitsCuda& splits, RansRunsCuda* runs,
                     cudaStream_t stream) {
  const Tensor dense = contiguous(tables);
  Tensor made = bytes(tables, sizeof(RansTablesCuda));
  check_launch(op, launch_rans_tables(dense.const_data_ptr<int32_t>(), dense.numel(), splits,
                                      pointer<RansTablesCuda>(made), runs, stream));
  return made;
}

// Raises what the CPU raises: first for the call, then for the first stream that has a problem.
void check_reports(const std::vector<EncodeReport>& reports, const std::vector<RansEncodeCuda>& tasks) {
  const char* op = "rans_encode";
  const EncodeReport* found = nullptr;
  const auto of_call = [](const EncodeReport& report) {
    const auto problem = static_cast<EncodeProblem>(report.problem);
    return problem == EncodeProblem::kSplits || problem == EncodeProblem::kTables;
  };
  for (const EncodeReport& report : reports) {
    if (report.problem == 0) continue;
    const bool sooner = found != nullptr && of_call(report) &&
                        (!of_call(*found) || report.segment < found->segment ||
                         (report.segment == found->segment && report.problem < found->problem));
    if (found == nullptr || sooner) found = &report;
  }
  if (found == nullptr) return;
  const RansEncodeCuda& task = tasks[static_cast<size_t>(found->segment)];
  const int64_t stream = found - reports.data();
  switch (static_cast<EncodeProblem>(found->problem)) {
    case EncodeProblem::kSplits:
      refuse_splits(op, task.streams, task.count);
    case EncodeProblem::kTables:
      refuse(op, ": ", info_of(StreamFault::kTables).message, "; those of segment ", found->segment,
             " are none");
    case EncodeProblem::kIndex:
      refuse(op, ": ", info_of(StreamFault::kIndex).message, ", got ", found->value, " at position ",
             found->position, " of stream ", stream, " in segment ", found->segment);
    default:
      refuse(op, ": symbols must be 0 where the table is a skip table, got ", found->value, " at position ",
             found->position, " of stream ", stream, " in segment ", found->segment);
  }
}

}  // namespace

std::tuple<Tensor, Tensor> rans_encode_cuda(std::vector<Tensor> symbols, std::vector<Tensor> index,
                                            std::vector<Tensor> tables, std::vector<Tensor> splits,
                                            int64_t lanes) {
  const char* op = "rans_encode";
  const int64_t streams = check_encode(symbols, index, tables, splits, lanes);
  const Tensor& like = symbols[0];
  const CudaDeviceGuard guard(like.get_device_index());
  const cudaStream_t stream = current_cuda_stream(like.get_device_index());
  const size_t segments = symbols.size();
  int64_t total = 0;
  for (size_t g = 0; g < segments; ++g) {
    if (splits[g].numel() != streams + 1) refuse_splits(op, streams, symbols[g].numel());
    total += symbols[g].numel();
  }
  const bool automatic = lanes == 0, wide = lanes != kNarrowLanes, narrow = lanes != kWideLanes;
  const auto count = static_cast<size_t>(total), rows_count = static_cast<size_t>(streams);
  Tensor rows = new_zeros(like, {static_cast<int64_t>(rows_count * sizeof(EncodeRow))}, ScalarType::Byte);
  Tensor reports = new_zeros(like, {(streams + 1) * 4}, ScalarType::Long);
  Tensor entries = bytes(like, count);
  Tensor words_wide = bytes(like, wide ? 2 * count : 0), words_narrow = bytes(like, narrow ? 2 * count : 0);
  Tensor raw = new_zeros(like, {total * 3 / 8 + streams}, ScalarType::Int);
  Tensor escapes = new_zeros(like, {total + streams}, ScalarType::Int);
  Tensor ends = new_empty(like, {streams}, ScalarType::Long);

  std::vector<RansEncodeCuda> tasks;
  std::vector<Tensor> held;
  int64_t before = 0;
  for (size_t g = 0; g < segments; ++g) {
    held.push_back(symbols[g] = contiguous(symbols[g]));
    held.push_back(index[g] = contiguous(index[g]));
    held.push_back(splits[g] = contiguous(splits[g]));
    // launch_rans_place looks at the splits, a stream at a time.
    Tensor runs = bytes(like, sizeof(RansRunsCuda));
    Tensor made = device_tables(op, tables[g], RansSplitsCuda{}, pointer<RansRunsCuda>(runs), stream);
    RansEncodeCuda task{};
    task.symbols = symbols[g].const_data_ptr<int16_t>();
    task.index = index[g].const_data_ptr<uint8_t>();
    task.count = symbols[g].numel();
    task.segment = static_cast<int64_t>(g);
    task.splits = splits[g].const_data_ptr<int64_t>();
    task.tables = pointer<RansTablesCuda>(made);
    task.runs = pointer<RansRunsCuda>(runs);
    task.streams = streams;
    task.total = total;
    task.rows = pointer<EncodeRow>(rows);
    task.reports = pointer<EncodeReport>(reports);
    task.entries_before = before;
    task.entries = pointer<uint8_t>(entries);
    task.words[0] = pointer<uint16_t>(words_wide);
    task.words[1] = pointer<uint16_t>(words_narrow);
    task.raw = pointer<uint32_t>(raw);
    task.escapes = pointer<uint32_t>(escapes);
    before += task.count;
    tasks.push_back(task);
    held.push_back(made);
    held.push_back(runs);
  }
  for (const RansEncodeCuda& task : tasks) check_launch(op, launch_rans_place(task, stream));
  for (const RansEncodeCuda& task : tasks) check_launch(op, launch_rans_split(task, stream));
  const EncodeOrder order = !automatic                 ? EncodeOrder::kGiven
                            : streams <= kTogetherUpTo ? EncodeOrder::kTogether
                                                       : EncodeOrder::kWideFirst;
  std::vector<int> passes;  // numbers of lanes, 0 for both
  if (order == EncodeOrder::kTogether) {
    passes = {0};
  } else if (order == EncodeOrder::kWideFirst) {
    passes = {kWideLanes, kNarrowLanes};
  } else {
    passes = {static_cast<int>(lanes)};
  }
  for (const int now : passes) {
    for (size_t g = segments; g-- > 0;) {
      check_launch(op, launch_rans_code(tasks[g], now, g + 1 == segments, order, stream));
    }
  }
  check_launch(
      op, launch_rans_choose(tasks[0], static_cast<int>(lanes), ends.mutable_data_ptr<int64_t>(), stream));

  Tensor here = torch::stable::empty({(streams + 1) * 4}, ScalarType::Long);
  torch::stable::copy_(here, reports);  // waits for the device
  const auto* const told = static_cast<const EncodeReport*>(here.const_data_ptr());
  check_reports(std::vector<EncodeReport>(told, told + streams), tasks);
  Tensor data = new_empty(like, {told[streams].value}, ScalarType::Byte);
  check_launch(op, launch_rans_write(tasks[0], ends.const_data_ptr<int64_t>(),
                                     data.mutable_data_ptr<uint8_t>(), stream));
  return {data, ends};
}

Tensor rans_decode_begin_cuda(Tensor data, Tensor ends) {
  const char* op = "rans_decode_begin";
  check_vector(op, "data", data, ScalarType::Byte, data);
  check_vector(op, "ends", ends, ScalarType::Long, data);
  const CudaDeviceGuard guard(data.get_device_index());
  const Tensor dense = contiguous(data), dense_ends = contiguous(ends);
  const int64_t streams = ends.numel();
  Tensor state = new_empty(data, {streams, kStateColumns}, ScalarType::Int);
  check_launch(op, launch_rans_begin(
                       dense.const_data_ptr<uint8_t>(), dense.numel(), dense_ends.const_data_ptr<int64_t>(),
                       streams, pointer<StreamState>(state), current_cuda_stream(data.get_device_index())));
  return state;
}

Tensor rans_decode_step_cuda(Tensor state, Tensor data, Tensor index, Tensor tables, Tensor splits) {
  const char* op = "rans_decode_step";
  check_state(op, state);
  check_state_place(op, state);
  check_vector(op, "data", data, ScalarType::Byte, state);
  check_segment(op, index, tables, splits, state);
  const int64_t streams = state.size(0), count = index.numel();
  if (splits.numel() != streams + 1 || (streams == 0 && count != 0)) refuse_splits(op, streams, count);
  const CudaDeviceGuard guard(state.get_device_index());
  const cudaStream_t stream = current_cuda_stream(state.get_device_index());
  const Tensor dense = contiguous(data), dense_index = contiguous(index), dense_splits = contiguous(splits);
  Tensor made =
      device_tables(op, tables, {dense_splits.const_data_ptr<int64_t>(), streams, count}, nullptr, stream);
  Tensor out = new_empty(state, {count}, ScalarType::Short);
  RansStepCuda task{};
  task.rows = pointer<StreamState>(state);
  task.streams = streams;
  task.data = dense.const_data_ptr<uint8_t>();
  task.size = dense.numel();
  task.index = dense_index.const_data_ptr<uint8_t>();
  task.count = count;
  task.tables = pointer<RansTablesCuda>(made);
  task.splits = dense_splits.const_data_ptr<int64_t>();
  task.symbols = out.mutable_data_ptr<int16_t>();
  check_launch(op, launch_rans_step(task, stream));
  return out;
}

Tensor rans_decode_end_cuda(Tensor state, Tensor data) {
  const char* op = "rans_decode_end";
  check_state(op, state);
  check_state_place(op, state);
  check_vector(op, "data", data, ScalarType::Byte, state);
  const CudaDeviceGuard guard(state.get_device_index());
  const Tensor dense = contiguous(data);
  Tensor faults = new_empty(state, {state.size(0)}, ScalarType::Int);
  check_launch(op,
               launch_rans_end(pointer<StreamState>(state), state.size(0), dense.const_data_ptr<uint8_t>(),
                               dense.numel(), faults.mutable_data_ptr<int32_t>(),
                               current_cuda_stream(state.get_device_index())));
  return faults;
}

}  // namespace aicr
