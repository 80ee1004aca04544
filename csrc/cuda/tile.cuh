// The voxels of a warp between the stages: planes in shared memory that no other warp touches.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/real.cuh"

namespace fastcal::cuda {

template <typename Real> struct Tile {
  Real *sum;             // [classes][width]
  Real *entropy;         // [width]; this and the next two only where kept
  Real *square;          // [width]
  Real *votes;           // [classes][width]
  int *target;           // [width]: the class of a voxel that counts, otherwise -1
  std::uint8_t *regions; // [width]: one bit per region that the voxel lies in
  int width;
  int count;          // voxels of this tile; the last one of a group has fewer
  std::int64_t first; // index of its first voxel in the grid
  int lane;

  __device__ __forceinline__ Real &sum_at(int c, int slot) const { return sum[c * width + slot]; }
  __device__ __forceinline__ Real &votes_at(int c, int slot) const {
    return votes[c * width + slot];
  }
};

template <typename Real>
FASTCAL_HOST_DEVICE inline std::int64_t tile_bytes(const PassArguments &a, int width) {
  const std::int64_t planes = std::int64_t{a.classes} * (a.keeps_votes ? 2 : 1) +
                              (a.keeps_entropy ? 1 : 0) + (a.keeps_square ? 1 : 0);
  const std::int64_t others = 4 + (a.counting.rows > 1 ? 1 : 0);
  const std::int64_t bytes = (planes * static_cast<std::int64_t>(sizeof(Real)) + others) * width;
  return (bytes + 15) / 16 * 16;
}

template <typename Real>
__device__ __forceinline__ Tile<Real> make_tile(const PassArguments &a, unsigned char *memory,
                                                int width, int lane) {
  Tile<Real> tile;
  tile.width = width;
  tile.lane = lane;
  tile.sum = reinterpret_cast<Real *>(memory);
  tile.entropy = tile.sum + a.classes * width;
  tile.square = tile.entropy + (a.keeps_entropy ? width : 0);
  tile.votes = tile.square + (a.keeps_square ? width : 0);
  tile.target = reinterpret_cast<int *>(tile.votes + (a.keeps_votes ? a.classes * width : 0));
  tile.regions = reinterpret_cast<std::uint8_t *>(tile.target + width);
  tile.count = 0;
  tile.first = 0;
  return tile;
}

// Fills the tile with zeros, where no state is loaded.
template <typename Real>
__device__ __forceinline__ void clear_tile(const PassArguments &a, const Tile<Real> &tile,
                                           bool sums) {
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.width; slot += kWarpLanes) {
#pragma unroll 1
    for (int c = 0; sums && c < a.classes; ++c) {
      tile.sum_at(c, slot) = Real{0};
    }
    if (a.keeps_entropy) {
      tile.entropy[slot] = Real{0};
    }
    if (a.keeps_square) {
      tile.square[slot] = Real{0};
    }
#pragma unroll 1
    for (int c = 0; a.keeps_votes && c < a.classes; ++c) {
      tile.votes_at(c, slot) = Real{0};
    }
  }
}

// Loads a streamed state. This backend keeps only the sum of the squares over the classes, in the
// first of their planes; a state of another backend may have a plane for each class.
template <typename Real>
__device__ __forceinline__ void load_state(const PassArguments &a, const Tile<Real> &tile) {
  const Real *state = static_cast<const Real *>(a.state.data);
  const std::int64_t plane = a.state.class_stride;
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    const Real *at = state + offset_of(a.grid, a.state.strides, tile.first + slot);
#pragma unroll 4
    for (int c = 0; c < a.classes; ++c) {
      tile.sum_at(c, slot) = at[c * plane];
    }
    if (a.keeps_entropy) {
      tile.entropy[slot] = at[a.entropy_plane * plane];
    }
    if (a.keeps_square) {
      Real square = at[a.square_plane * plane];
#pragma unroll 1
      for (int c = 1; a.accepts_squares && c < a.classes; ++c) {
        square += at[(a.square_plane + c) * plane];
      }
      tile.square[slot] = square;
    }
#pragma unroll 1
    for (int c = 0; a.keeps_votes && c < a.classes; ++c) {
      tile.votes_at(c, slot) = at[(a.votes_plane + c) * plane];
    }
  }
}

template <typename Real>
__device__ __forceinline__ void store_state(const PassArguments &a, const Tile<Real> &tile) {
  Real *state = static_cast<Real *>(a.state.data);
  const std::int64_t plane = a.state.class_stride;
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    Real *at = state + offset_of(a.grid, a.state.strides, tile.first + slot);
#pragma unroll 4
    for (int c = 0; c < a.classes; ++c) {
      at[c * plane] = tile.sum_at(c, slot);
    }
    if (a.keeps_entropy) {
      at[a.entropy_plane * plane] = tile.entropy[slot];
    }
    if (a.keeps_square) {
      at[a.square_plane * plane] = tile.square[slot];
    }
#pragma unroll 1
    for (int c = 0; a.keeps_votes && c < a.classes; ++c) {
      at[(a.votes_plane + c) * plane] = tile.votes_at(c, slot);
    }
  }
}

} // namespace fastcal::cuda
