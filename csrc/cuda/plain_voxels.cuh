// The voxels of one thread in a plain pass, and how their values pass between registers and a map
// or a state.
//
// Where every row of a member begins at a multiple of 16 bytes, a thread takes neighbours, which it
// reads and writes 16 bytes at a time. Otherwise its voxels are a warp's width apart, so that the
// lanes of a warp touch neighbours in memory. Values of a view that does not take 16 bytes at a
// time pass through shared memory, from where one short loop serves all views of a tile.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

template <int kV> struct Voxels {
  static constexpr int kWidth = kWarpLanes * kV; // of the tile

  std::int64_t tile_first;    // index of the tile's first voxel in the grid
  std::int64_t member_offset; // of this thread's first voxel in a member, where it takes neighbours
  int count;                  // voxels of the tile
  int slot;                   // place of this thread's first voxel in the tile
  int step;                   // from one of its voxels to the next
  bool row;                   // they lie in one row of the grid, so that their offsets grow evenly

  __device__ __forceinline__ bool holds(int v) const { return slot + v * step < count; }
  __device__ __forceinline__ std::int64_t first() const { return tile_first + slot; }

  // Writes this thread's values to a plane of the tile in shared memory.
  template <typename Value>
  __device__ __forceinline__ void leave(Value *plane, const Value (&values)[kV]) const {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      plane[slot + v * step] = values[v];
    }
  }
  template <typename Value>
  __device__ __forceinline__ void fetch(const Value *plane, Value (&values)[kV]) const {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      values[v] = plane[slot + v * step];
    }
  }

  // Calls visit(slot, offset) for each voxel of this thread, with its offset in a view.
  template <typename Visit>
  __device__ __forceinline__ void visit(const Grid &grid, const View &view,
                                        const Visit &visit) const {
    std::int64_t at = offset_of(grid, view.strides, first());
    const std::int64_t stride = grid.axes == 0 ? 0 : step * view.strides[grid.axes - 1];
    const int end = count < slot + kV * step ? count : slot + kV * step;
#pragma unroll 1
    for (int mine = slot; mine < end; mine += step) {
      visit(mine, at);
      at = row ? at + stride : offset_of(grid, view.strides, tile_first + mine + step);
    }
  }
};

// Writes neighbours of any type of at most 8 bytes, 16 bytes at a time.
template <typename Value, int kV, typename From>
__device__ __forceinline__ void store_neighbours(const View &view, std::int64_t at,
                                                 const From (&values)[kV]) {
  Value converted[kV];
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    converted[v] = static_cast<Value>(values[v]);
  }
  write_plane<kV>(static_cast<Value *>(view.data) + at, converted);
}

template <int kV>
__device__ __forceinline__ void store_wide(const View &view, std::int64_t at,
                                           const float (&values)[kV]) {
  store_neighbours<float>(view, at, values);
}
template <int kV>
__device__ __forceinline__ void store_wide(const View &view, std::int64_t at,
                                           const int (&values)[kV]) {
  switch (view.dtype) {
  case Dtype::kInt64:
  case Dtype::kUInt64:
    store_neighbours<std::int64_t>(view, at, values);
    return;
  case Dtype::kInt32:
  case Dtype::kUInt32:
    store_neighbours<std::int32_t>(view, at, values);
    return;
  case Dtype::kInt16:
  case Dtype::kUInt16:
    store_neighbours<std::int16_t>(view, at, values);
    return;
  default:
    store_neighbours<std::int8_t>(view, at, values);
  }
}

// What the lanes of a warp keep in shared memory, by the plan of the host.
struct PlainMemory {
  unsigned char *begin;
  const PlainPlan &plan;

  template <typename T> __device__ __forceinline__ T *at(std::int32_t offset) const {
    return reinterpret_cast<T *>(begin + offset);
  }
  template <typename T> __device__ __forceinline__ T *staged(int map) const {
    return at<T>(plan.staged[map]);
  }
};

// Writes a plane of a map, or leaves it for scatter_maps.
template <int kV, typename Value>
__device__ __forceinline__ void write_map(const PassArguments &a, Map map, int plane,
                                          const PlainMemory &memory, const Voxels<kV> &voxels,
                                          const Value (&values)[kV]) {
  const auto index = static_cast<int>(map);
  if ((a.wide_maps >> index & 1U) != 0) {
    if (voxels.holds(0)) {
      const View &view = a.maps.views[index];
      const bool like_member = (a.maps_like_member >> index & 1U) != 0;
      const std::int64_t at = like_member ? voxels.member_offset : voxels.first();
      store_wide(view, at + plane * view.class_stride, values);
    }
  } else {
    voxels.leave(memory.staged<Value>(index) + plane * Voxels<kV>::kWidth, values);
  }
}

// Writes what write_map left in shared memory. A lane reads back only what it left itself.
template <int kV>
__device__ __forceinline__ void scatter_maps(const PassArguments &a, const PlainMemory &memory,
                                             const Voxels<kV> &voxels) {
#pragma unroll 1
  for (int map = 0; map < kMapCount; ++map) {
    const View &view = a.maps.views[map];
    if (view.data == nullptr || (a.wide_maps >> map & 1U) != 0) {
      continue;
    }
    const bool label = map == static_cast<int>(Map::kLabel);
    const float *plane = memory.staged<float>(map);
    const int planes = map == static_cast<int>(Map::kMean) ? a.classes : 1;
#pragma unroll 1
    for (int k = 0; k < planes; ++k) {
      voxels.visit(a.grid, view, [&](int slot, std::int64_t at) {
        at += k * view.class_stride;
        if (label) {
          store_label(view, at, memory.staged<int>(map)[slot]);
        } else {
          store_real(view, at, plane[slot]);
        }
      });
      plane += Voxels<kV>::kWidth;
    }
  }
}

} // namespace fastcal::cuda
