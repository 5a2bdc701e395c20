// Host side of channel_gram on the CPU: checks, layout, dispatch by dtype, threads.
#include "cpu/channel_gram.hpp"

#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/accumulate.hpp"
#include "cpu/channel_gram_kernel.hpp"
#include "host/channel_gram_check.hpp"
#include "host/layout.hpp"

namespace aicr {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

ChannelGramMap map_of(const Tensor& x, bool channels_last) {
  return {x.stride(0), channels_last ? pixel_step(x) : x.stride(1)};
}

template <typename T>
void run(const ChannelGramShape& shape, const Tensor& q, const Tensor& k, Tensor& scores, Tensor& q_norm,
         Tensor& k_norm) {
  using Acc = typename Accumulate<T>::type;
  const ChannelGramPlan plan(shape);
  const int64_t pieces = plan.pieces(shape);
  std::vector<Acc> parts(pieces * plan.part());
  const T *q_data = q.const_data_ptr<T>(), *k_data = k.const_data_ptr<T>();
  torch::stable::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    channel_gram_run<T, Acc>(shape, q_data, k_data, parts.data(), first, last);
  });
  channel_gram_finish<Acc>(shape, parts.data(), scores.mutable_data_ptr<Acc>(),
                           q_norm.mutable_data_ptr<Acc>(), k_norm.mutable_data_ptr<Acc>());
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> channel_gram_cpu(Tensor q, Tensor k, int64_t groups) {
  check_channel_gram(q, k, groups);
  const bool channels_last = prefers_channels_last(q);
  const Tensor queries = readable(q, channels_last), keys = readable(k, channels_last);
  const int64_t depth = q.size(1) / groups;
  const ChannelGramShape shape{q.size(0),
                               groups,
                               depth,
                               q.size(2) * q.size(3),
                               channels_last,
                               map_of(queries, channels_last),
                               map_of(keys, channels_last)};
  const ScalarType sums = accumulate_type(q.scalar_type());
  Tensor scores = torch::stable::new_empty(q, {shape.batch, groups, depth, depth}, sums);
  Tensor q_norm = torch::stable::new_empty(q, {shape.batch, groups, depth}, sums);
  Tensor k_norm = torch::stable::new_empty(q, {shape.batch, groups, depth}, sums);
  THO_DISPATCH_V2(q.scalar_type(), "channel_gram",
                  AT_WRAP([&] { run<scalar_t>(shape, queries, keys, scores, q_norm, k_norm); }),
                  ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half);
  return {scores, q_norm, k_norm};
}

}  // namespace aicr
