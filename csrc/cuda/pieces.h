// How voxels are dealt to warps where sums of doubles are wanted. A warp adds up one piece of an
// image, in order, into a row of its own; the rows are then added in an order that only their
// number decides. So a sum has the same bits on every device and at every run.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/ensemble.h"
#include "cuda/error.h"

namespace fastcal::cuda {

constexpr int kPieceWarps = 4; // of a block

// Blocks that a multiprocessor must hold where a thread needs more registers than the compiler
// gives it of its own accord. It would rather spill one than give up a block.
constexpr int piece_blocks(int real_bytes) { return real_bytes == 8 ? 2 : 4; }

struct Pieces {
  std::int64_t items = 0; // images
  std::int64_t tiles = 0; // of an image
  std::int64_t each = 1;  // tiles of a piece
  std::int64_t count = 0; // of an image

  FASTCAL_HOST_DEVICE std::int64_t all() const { return items * count; }
};

// Pieces of images of so many voxels, whose sums have so many words. More pieces than these would
// not make a device busier; fewer keep the rows below 32 MB.
inline Pieces pieces_of(std::int64_t items, std::int64_t item_voxels, std::int64_t tile_voxels,
                        std::int64_t words) {
  constexpr std::int64_t kMost = 4096;
  constexpr std::int64_t kMostWords = std::int64_t{1} << 22;
  Pieces pieces;
  pieces.items = items;
  pieces.tiles = (item_voxels + tile_voxels - 1) / tile_voxels;
  const std::int64_t room = kMostWords / std::max<std::int64_t>(items * words, 1);
  const std::int64_t most = std::clamp<std::int64_t>(room, 1, kMost);
  pieces.each = std::max<std::int64_t>((pieces.tiles + most - 1) / most, 1);
  pieces.count = (pieces.tiles + pieces.each - 1) / pieces.each;
  return pieces;
}

// sums[item][word], set to or, with `adds`, increased by the sum over the pieces of
// partial[item][piece][word].
Error add_pieces(const double *partial, const Pieces &pieces, std::int64_t words, bool adds,
                 double *sums, const Place &place);
Error add_pieces(const std::int64_t *partial, const Pieces &pieces, std::int64_t words, bool adds,
                 std::int64_t *sums, const Place &place);

} // namespace fastcal::cuda
