// Per group scores[i][j] = sum of q_i k_j over pixels, and the sums of q_i^2 and k_j^2: one pass over q and
// k.
//
// A block of pixels of a chunk of groups is converted into working memory in the first cache, where its
// squares are summed too. Channels-last a tile of scores is then some rows of q by vectors of k, whose sums
// stay in registers over the block: for every pixel each value of q multiplies all the vectors of k. Of
// planes the vectors are pixels, and their sums are added up at the end of a block. Sums of a block are added
// to the part of the piece, and parts in double, so that no sum has many terms.
#include "cpu/channel_gram_kernel.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/vector32.hpp"
#include "cpu/vector_clones.hpp"

namespace aicr {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kBlock = 64;  // pixels

// The channels of some pixels that lie `step` apart.
template <typename T, typename Acc>
AICR_INLINE void convert_pixels(const T* __restrict__ from, int64_t step, int64_t count, int64_t channels,
                                Acc* __restrict__ to, int64_t to_step) {
  constexpr int64_t kMany = 32, kFew = 8;  // loops of constant length become vector code without prologues
  for (int64_t p = 0; p < count; ++p, from += step, to += to_step) {
    int64_t c = 0;
    for (; c + kMany <= channels; c += kMany) {
      for (int64_t i = 0; i < kMany; ++i) to[c + i] = static_cast<Acc>(from[c + i]);
    }
    for (; c + kFew <= channels; c += kFew) {
      for (int64_t i = 0; i < kFew; ++i) to[c + i] = static_cast<Acc>(from[c + i]);
    }
    for (; c < channels; ++c) to[c] = static_cast<Acc>(from[c]);
  }
}

// Rows i and i + S of a square matrix, for every S a power of two, with the blocks of S x S beside the
// diagonal swapped.
template <int S, typename V, size_t... I>
AICR_INLINE void swap_blocks(V& low, V& high, std::index_sequence<I...>) {
  const V a = low, b = high;
  low = V{((I & S) != 0 ? b[I - (I & S)] : a[I])...};
  high = V{((I & S) != 0 ? b[I] : a[I + (~I & S)])...};
}

template <int S, typename V, int kSize>
AICR_INLINE void swap_all_blocks(V (&rows)[kSize]) {
#pragma GCC unroll 8
  for (int i = 0; i < kSize; ++i) {
    if ((i & S) == 0) swap_blocks<S>(rows[i], rows[i + S], std::make_index_sequence<kSize>());
  }
}

// The same of planes that lie `step` apart: a matrix of so many channels and pixels as a vector has values at
// a time.
template <typename T, typename Acc>
AICR_INLINE void convert_planes(const T* __restrict__ from, int64_t step, int64_t count, int64_t channels,
                                Acc* __restrict__ to, int64_t to_step) {
  using V = typename Vector32<Acc>::type;
  constexpr int kValues = Vector32<Acc>::kValues;
  int64_t c = 0;
  for (; c + kValues <= channels; c += kValues) {
    int64_t p = 0;
    for (; p + kValues <= count; p += kValues) {
      V rows[kValues];
#pragma GCC unroll 8
      for (int i = 0; i < kValues; ++i) {
        Acc values[kValues];
        for (int n = 0; n < kValues; ++n) values[n] = static_cast<Acc>(from[(c + i) * step + p + n]);
        rows[i] = *reinterpret_cast<const V*>(values);
      }
      swap_all_blocks<1>(rows);
      swap_all_blocks<2>(rows);
      if (kValues > 4) swap_all_blocks<kValues / 2>(rows);
#pragma GCC unroll 8
      for (int i = 0; i < kValues; ++i) *reinterpret_cast<V*>(to + (p + i) * to_step + c) = rows[i];
    }
    for (; p < count; ++p) {
      for (int64_t i = c; i < c + kValues; ++i) to[p * to_step + i] = static_cast<Acc>(from[i * step + p]);
    }
  }
  for (; c < channels; ++c) {
    for (int64_t p = 0; p < count; ++p) to[p * to_step + c] = static_cast<Acc>(from[c * step + p]);
  }
}

// squares += x^2 over `count` pixels, N vectors of channels.
template <int N, typename Acc>
AICR_INLINE void add_squares(const Acc* x, int64_t step, int64_t count, Acc* squares) {
  using V = typename Vector32<Acc>::type;
  constexpr int64_t kValues = Vector32<Acc>::kValues;
  V sum[N] = {};
  for (int64_t p = 0; p < count; ++p, x += step) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const V value = *reinterpret_cast<const V*>(x + n * kValues);
      sum[n] += value * value;
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) *reinterpret_cast<V*>(squares + n * kValues) += sum[n];
}

template <typename Acc>
AICR_INLINE void add_all_squares(const Acc* x, int64_t step, int64_t count, int64_t channels, Acc* squares) {
  constexpr int64_t kValues = Vector32<Acc>::kValues;
  int64_t c = 0;
  for (; c + 4 * kValues <= channels; c += 4 * kValues) add_squares<4>(x + c, step, count, squares + c);
  for (; c < channels; c += kValues) add_squares<1>(x + c, step, count, squares + c);
}

// R rows by N vectors of scores.
template <int R, int N, typename Acc>
AICR_INLINE void tile(const Acc* q, const Acc* k, int64_t step, int64_t count, Acc* scores, int64_t columns) {
  using V = typename Vector32<Acc>::type;
  constexpr int64_t kValues = Vector32<Acc>::kValues;
  V sum[R][N] = {};
  for (int64_t p = 0; p < count; ++p, q += step, k += step) {
    V key[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) key[n] = *reinterpret_cast<const V*>(k + n * kValues);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] += q[r] * key[n];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) *reinterpret_cast<V*>(scores + r * columns + n * kValues) += sum[r][n];
  }
}

// The scores of one group.
template <typename Acc>
AICR_INLINE void add_scores(const Acc* q, const Acc* k, int64_t step, int64_t count, int64_t depth,
                            const ChannelGramPlan& plan, Acc* scores) {
  constexpr int64_t kValues = Vector32<Acc>::kValues;
  if (plan.columns == kValues) {
    tile<8, 1>(q, k, step, count, scores, kValues);
    return;
  }
  for (int64_t j = 0; j < plan.columns;) {
    const int64_t left = (plan.columns - j) / kValues;
    const bool three = left == 3 || left > 4;
    for (int64_t i = 0; i < depth; i += 4) {
      Acc* at = scores + i * plan.columns + j;
      if (three) {
        tile<4, 3>(q + i, k + j, step, count, at, plan.columns);
      } else {
        tile<4, 2>(q + i, k + j, step, count, at, plan.columns);
      }
    }
    j += (three ? 3 : 2) * kValues;
  }
}

// A block of a piece of queries or keys: `map` is where they lie.
template <typename T, typename Acc>
AICR_INLINE void load_block(const T* from, const ChannelGramMap& map, bool channels_last,
                            const ChannelGramPiece& piece, int64_t pixel, int64_t count, Acc* to,
                            int64_t to_step, Acc* squares) {
  from += piece.picture * map.picture;
  if (channels_last) {
    convert_pixels(from + pixel * map.step + piece.channel, map.step, count, piece.channels, to, to_step);
  } else {
    convert_planes(from + piece.channel * map.step + pixel, map.step, count, piece.channels, to, to_step);
  }
  add_all_squares(to, to_step, count, piece.channels, squares);
}

template <typename T, typename Acc>
AICR_INLINE void run_pieces(const ChannelGramShape& shape, const T* q, const T* k, Acc* parts, int64_t first,
                            int64_t last, Acc* of_q, Acc* of_k) {
  const ChannelGramPlan plan(shape);
  for (int64_t index = first; index < last; ++index) {
    const ChannelGramPiece piece(shape, plan, index);
    Acc* part = parts + index * plan.part();
    Acc *q_squares = part + plan.squares(), *k_squares = q_squares + plan.run;
    for (int64_t p = piece.begin; p < piece.end; p += kBlock) {
      const int64_t count = std::min(kBlock, piece.end - p);
      load_block(q, shape.q, shape.channels_last, piece, p, count, of_q, plan.run, q_squares);
      load_block(k, shape.k, shape.channels_last, piece, p, count, of_k, plan.run, k_squares);
      for (int64_t g = 0; g < piece.groups; ++g) {
        const int64_t channel = g * shape.depth;
        add_scores(of_q + channel, of_k + channel, plan.run, count, shape.depth, plan,
                   part + g * plan.group_scores());
      }
    }
  }
}

// target_clones does not go with templates, so the types are spelled out.
#define AICR_DEFINE_CLONES(T, Acc)                                                                      \
  AICR_VECTOR_CLONES void run_clones(const ChannelGramShape& shape, const T* q, const T* k, Acc* parts, \
                                     int64_t first, int64_t last, Acc* of_q, Acc* of_k) {               \
    run_pieces(shape, q, k, parts, first, last, of_q, of_k);                                            \
  }
AICR_DEFINE_CLONES(float, float)
AICR_DEFINE_CLONES(BFloat16, float)
AICR_DEFINE_CLONES(Half, float)
AICR_DEFINE_CLONES(double, double)
#undef AICR_DEFINE_CLONES

bool run_own_products(const ChannelGramShape& shape, const BFloat16* q, const BFloat16* k, float* parts,
                      int64_t first, int64_t last) {
  return shape.channels_last && channel_gram_avx512(shape, reinterpret_cast<const uint16_t*>(q),
                                                    reinterpret_cast<const uint16_t*>(k), parts, first, last);
}

template <typename T, typename Acc>
bool run_own_products(const ChannelGramShape&, const T*, const T*, Acc*, int64_t, int64_t) {
  return false;
}

}  // namespace

template <typename T, typename Acc>
void channel_gram_run(const ChannelGramShape& shape, const T* q, const T* k, Acc* parts, int64_t first,
                      int64_t last) {
  if (run_own_products(shape, q, k, parts, first, last)) return;
  const int64_t run = ChannelGramPlan(shape).run;
  const int64_t values = kBlock * run + kChannelGramSlack;
  std::vector<Acc> memory(2 * values);
  run_clones(shape, q, k, parts, first, last, memory.data(), memory.data() + values);
}

template <typename Acc>
void channel_gram_finish(const ChannelGramShape& shape, const Acc* parts, Acc* scores, Acc* q_squares,
                         Acc* k_squares) {
  const ChannelGramPlan plan(shape);
  const int64_t depth = shape.depth;
  std::vector<double> sums(plan.part());
  for (int64_t picture = 0; picture < shape.batch; ++picture) {
    for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int64_t block = 0; block < plan.blocks; ++block) {
        const Acc* part = parts + ((picture * plan.blocks + block) * plan.chunks + chunk) * plan.part();
        for (int64_t i = 0; i < plan.part(); ++i) sums[i] += part[i];
      }
      const int64_t first = chunk * plan.chunk, groups = std::min(plan.chunk, shape.groups - first);
      const int64_t channel = (picture * shape.groups + first) * depth;
      for (int64_t row = 0; row < groups * depth; ++row) {
        const double* of_row = sums.data() + row / depth * plan.group_scores() + row % depth * plan.columns;
        for (int64_t j = 0; j < depth; ++j) scores[(channel + row) * depth + j] = static_cast<Acc>(of_row[j]);
        q_squares[channel + row] = static_cast<Acc>(sums[plan.squares() + row]);
        k_squares[channel + row] = static_cast<Acc>(sums[plan.squares() + plan.run + row]);
      }
    }
  }
}

template void channel_gram_finish<float>(const ChannelGramShape&, const float*, float*, float*, float*);
template void channel_gram_finish<double>(const ChannelGramShape&, const double*, double*, double*, double*);

#define AICR_INSTANTIATE(T, Acc) \
  template void channel_gram_run<T, Acc>(const ChannelGramShape&, const T*, const T*, Acc*, int64_t, int64_t);
AICR_INSTANTIATE(float, float)
AICR_INSTANTIATE(BFloat16, float)
AICR_INSTANTIATE(Half, float)
AICR_INSTANTIATE(double, double)
#undef AICR_INSTANTIATE

}  // namespace aicr
