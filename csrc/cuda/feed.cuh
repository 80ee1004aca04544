// How the numbers of the members reach the registers of a plain pass: member by member, tile by
// tile.
//
// With copies ahead, a warp has a ring of stages in shared memory. Each holds the tile's numbers of
// one member, and all but the one that is read are on their way, for the next members and the next
// tiles. Where a row does not begin at a multiple of 16 bytes, the aligned bytes around it are
// copied and read one by one from there. Without copies ahead, and for tiles that lie in several
// such rows, the numbers go straight to the registers.
#pragma once

#include <cstdint>

#include "cuda/async_copy.cuh"
#include "cuda/stage.cuh"

namespace fastcal::cuda {

// From one tile of a warp to its next.
__device__ __forceinline__ std::uint32_t tile_step() {
  return gridDim.x * (blockDim.x / kWarpLanes);
}

// Hands out one member after the other of one tile after the other, and keeps the copies of the
// following ones on their way.
template <typename Element, int kC, int kV> class Feed {
public:
  static constexpr int kStages = ring_stages(sizeof(Element), kC, kV);

  __device__ __forceinline__ Feed(const PassArguments &a, unsigned char *memory, int lane)
      : a_(a), ring_(memory), lane_(lane) {}

  // Begins with the warp's first tile of a group.
  __device__ __forceinline__ void open(std::uint32_t group, std::uint32_t first) {
    group_ = group;
    next_tile_ = first;
    next_member_ = 0;
    stage_ = 0;
    if (a_.copies_ahead) {
      aim();
#pragma unroll 1
      for (int i = 0; i < kStages; ++i) {
        start_next(i);
      }
    }
  }

  // Gives the numbers of a member, in the order in which they are handed out.
  __device__ __forceinline__ void take(const MemberEntry &member, const Source<kV> &from,
                                       const std::int64_t *offsets, Numbers<Element, kC, kV> &z) {
    wait_for_copies<kStages - 1>();
    if (!a_.vector) {
      __syncwarp(); // the copies of the other lanes have landed too
    }
    if (comes_by_copy(from)) {
      stage(stage_).read(member.data, from, z);
    } else {
      load(member.data, from, offsets, z);
    }
    if (a_.copies_ahead) {
      if (!a_.vector) {
        __syncwarp(); // every lane has read before the stage is filled again
      }
      start_next(stage_);
      stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
    }
  }

  // To be called when all members of all tiles are taken.
  __device__ __forceinline__ void close() const {
    if (a_.copies_ahead) {
      wait_for_copies<0>(); // those of the last stages are empty
    }
  }

  // Where a tile's numbers lie.
  __device__ __forceinline__ Source<kV> source(std::int64_t first, int count) const {
    Source<kV> from;
    from.count = count;
    const int slot = a_.vector && lane_ * kV < count ? lane_ * kV : 0;
    from.offset = offset_of(a_.grid, a_.member.strides, first + slot);
    const bool copied =
        a_.copies_ahead && (a_.vector || (a_.runs && lie_in_one_row(a_.grid, first, count)));
    from.copies = copied ? count : 0;
    return from;
  }

  // Whether a tile's numbers go through the ring; known without a look at the tile where threads
  // read vectors or all voxels are one row.
  __device__ __forceinline__ bool comes_by_copy(const Source<kV> &from) const {
    return a_.copies_ahead && (a_.vector || (a_.runs && a_.grid.axes <= 1) || from.copies > 0);
  }

private:
  __device__ __forceinline__ Stage<Element, kC, kV> stage(int which) const {
    return {a_, ring_, which, lane_};
  }

  // Turns to the tile whose members are copied next.
  __device__ __forceinline__ void aim() {
    if (next_tile_ < a_.tiles) {
      const std::int64_t first = std::int64_t{next_tile_} * (kWarpLanes * kV);
      const std::int64_t left = a_.group_voxels - first;
      next_ = source(group_ * a_.group_voxels + first,
                     left < kWarpLanes * kV ? static_cast<int>(left) : kWarpLanes * kV);
    }
  }

  __device__ __forceinline__ void start_next(int into) {
    if (next_tile_ < a_.tiles) {
      stage(into).start(member_of(a_, next_member_).data, next_);
      if (++next_member_ == a_.n_members) {
        next_member_ = 0;
        next_tile_ += tile_step();
        aim();
      }
    }
    commit_copies();
  }

  // Reads from device memory.
  __device__ __forceinline__ void load(const void *member, const Source<kV> &from,
                                       const std::int64_t *offsets,
                                       Numbers<Element, kC, kV> &z) const {
    const Element *data = static_cast<const Element *>(member);
    if (a_.vector) {
      if (lane_ * kV < from.count) {
#pragma unroll
        for (int k = 0; k < kC; ++k) {
          const Element *at = data + from.offset + k * a_.member.class_stride;
          z.set_neighbours(
              k, [at](auto bits) { return __ldcs(reinterpret_cast<const decltype(bits) *>(at)); });
        }
      } else {
        z.clear();
      }
      return;
    }
    z.clear();
#pragma unroll
    for (int i = 0; i < kV; ++i) {
      const int slot = lane_ + i * kWarpLanes;
      if (slot < from.count) {
        const Element *at = data + offsets[slot];
#pragma unroll
        for (int k = 0; k < kC; ++k) {
          z.set(k, i, at[k * a_.member.class_stride]);
        }
      }
    }
  }

  const PassArguments &a_;
  SharedPlace ring_;
  int lane_;
  int stage_ = 0;
  int next_member_ = 0;
  std::uint32_t group_ = 0;
  std::uint32_t next_tile_ = 0;
  Source<kV> next_;
};

} // namespace fastcal::cuda
