// Per group q k^T and the sums of squares of q and k over the pixels of feature maps, on pointers. No torch
// here.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/tiles.hpp"

namespace aicr {

// Queries or keys as they lie in memory. Channels-last the values of a pixel lie beside one another,
// otherwise those of a channel do.
struct ChannelGramMap {
  int64_t picture;  // values from one picture to the next
  int64_t step;     // from one pixel to the next, or of planes from one channel to the next
};

struct ChannelGramShape {
  int64_t batch, groups, depth, pixels;  // depth: channels of a group
  bool channels_last;
  ChannelGramMap q, k;
};

// Working memory and parts go on for so many values beyond their last row: tiles do not end where a group
// does, and what they make of others goes to where nobody reads.
constexpr int64_t kChannelGramSlack = 32;

// How the work is cut: a piece is some pixels of one picture by some groups, the chunk. Each piece leaves a
// part: the scores of its groups, in rows of `columns` values, and the squares of q and of k.
struct ChannelGramPlan {
  static constexpr int64_t kChunkChannels = 64;
  static constexpr int64_t kPiecePixels = 1024;

  int64_t chunk, chunks, piece_pixels, blocks;
  int64_t rows, columns;  // depth, rounded up to what tiles have
  int64_t run;            // channels of a chunk, likewise

  explicit ChannelGramPlan(const ChannelGramShape& s)
      : chunk(std::clamp<int64_t>(kChunkChannels / std::max<int64_t>(s.depth, 1), 1,
                                  std::max<int64_t>(s.groups, 1))),
        chunks(divide_up(s.groups, chunk)),
        piece_pixels(kPiecePixels * divide_up(std::max<int64_t>(s.depth, 1), 128)),
        blocks(s.depth > 0 ? divide_up(s.pixels, piece_pixels) : 0),
        rows(divide_up(s.depth, 8) * 8),
        columns(s.depth > 8 ? divide_up(s.depth, 16) * 16 : 8),
        run(divide_up(chunk * s.depth, 16) * 16) {}

  int64_t pieces(const ChannelGramShape& s) const { return s.batch * blocks * chunks; }
  int64_t group_scores() const { return rows * columns; }
  int64_t squares() const { return chunk * group_scores(); }  // where they begin in a part
  int64_t part() const { return squares() + 2 * run + kChannelGramSlack; }
};

// The pixels, groups and channels of a piece.
struct ChannelGramPiece {
  int64_t picture, begin, end, group, groups, channel, channels;

  ChannelGramPiece(const ChannelGramShape& s, const ChannelGramPlan& plan, int64_t index)
      : picture(index / plan.chunks / plan.blocks),
        begin(index / plan.chunks % plan.blocks * plan.piece_pixels),
        end(std::min(begin + plan.piece_pixels, s.pixels)),
        group(index % plan.chunks * plan.chunk),
        groups(std::min(plan.chunk, s.groups - group)),
        channel(group * s.depth),
        channels(groups * s.depth) {}
};

// Pieces first <= i < last; each adds to its part, which is zeros.
template <typename T, typename Acc>
void channel_gram_run(const ChannelGramShape& shape, const T* q, const T* k, Acc* parts, int64_t first,
                      int64_t last);

// Adds up the parts in their order: scores (batch, groups, depth, depth), squares (batch, groups, depth).
template <typename Acc>
void channel_gram_finish(const ChannelGramShape& shape, const Acc* parts, Acc* scores, Acc* q_squares,
                         Acc* k_squares);

// The same pieces of channels-last bfloat16 by the processor's own products of these; false where it has
// none.
bool channel_gram_avx512(const ChannelGramShape& shape, const uint16_t* q, const uint16_t* k, float* parts,
                         int64_t first, int64_t last);

}  // namespace aicr
