// How operators with a spatial reach cut feature maps into pieces. No torch here.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/tiles.hpp"

namespace aicr {

// A dense tensor of batch x channels x height x width, in memory either channel-minor (channels_last) or as
// planes.
struct MapShape {
  int64_t batch, channels, height, width;
  bool channels_last;
};

// A block of rows by a strip of columns of one picture (channels-last) or of one plane.
struct Piece {
  int64_t picture;        // or plane
  int64_t left, columns;  // of the strip
  int64_t top, bottom;    // rows top <= h < bottom
};

// How a shape is cut. A plane is a picture with one channel.
struct PiecePlan {
  static constexpr int64_t kBlockRows = 32, kSmallBlockRows = 16;
  static constexpr int64_t kFewPieces = 16;  // fewer are cut into smaller blocks, for the sake of the threads
  static constexpr int64_t kMinStripColumns = 16;

  int64_t pictures, channels, height, width, strip, strips, block_rows, blocks;

  // strip_values: of one line of a strip, which decides how much working memory a piece takes.
  PiecePlan(const MapShape& s, int64_t strip_values)
      : pictures(s.channels_last ? s.batch : s.batch * s.channels),
        channels(s.channels_last ? s.channels : 1),
        height(s.height),
        width(s.width),
        strip(std::min(width, std::max(kMinStripColumns, strip_values / std::max<int64_t>(channels, 1)))),
        strips(strip > 0 ? divide_up(width, strip) : 0),
        block_rows(pictures * strips * divide_up(height, kBlockRows) < kFewPieces ? kSmallBlockRows
                                                                                  : kBlockRows),
        blocks(divide_up(height, block_rows)) {}

  int64_t pieces() const { return channels > 0 ? pictures * blocks * strips : 0; }

  Piece piece(int64_t index) const {
    const int64_t left = index % strips * strip, top = index / strips % blocks * block_rows;
    return {index / strips / blocks, left, std::min(strip, width - left), top,
            std::min(top + block_rows, height)};
  }
};

// Columns begin <= w < end of a picture.
struct ColumnRange {
  int64_t begin, end;
};

// Those of a piece and `reach` more on each side, as far as the picture goes.
inline ColumnRange columns_around(const Piece& piece, int64_t reach, int64_t width) {
  return {std::max<int64_t>(piece.left - reach, 0), std::min(piece.left + piece.columns + reach, width)};
}

}  // namespace aicr
