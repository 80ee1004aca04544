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
#include "cuda/numbers.cuh"
#include "cuda/plain_voxels.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

// From one tile of a warp to its next.
__device__ __forceinline__ std::uint32_t tile_step() {
  return gridDim.x * (blockDim.x / kWarpLanes);
}

// Where the numbers of a tile lie in a member.
template <int kV> struct Source {
  std::int64_t offset = 0; // of the thread's voxels where it reads vectors, otherwise of the tile
  int count = 0;           // voxels of the tile
  int copies = 0;          // how many of them this thread's copies concern: all or none
};

// The member's voxels of a tile whose rows are read as they lie. A whole voxel after the other
// (channels last) makes one run of them, otherwise each class has a run of its own.
template <typename Element, int kC, int kV> class Stage {
public:
  static constexpr int kElement = static_cast<int>(sizeof(Element));
  static constexpr int kRow = kWarpLanes * kV * kElement;
  static constexpr int kBytes = stage_bytes(kElement, kC, kV);
  static constexpr int kPitch = kBytes / kC; // a run may begin up to 15 bytes before its row

  __device__ __forceinline__ Stage(const PassArguments &a, const SharedPlace &ring, int which,
                                   int lane)
      : a_(a), memory_(ring.at(which * kBytes)), lane_(lane) {}

  // Starts to copy what this thread copies of a member.
  __device__ __forceinline__ void start(const void *member, const Source<kV> &from) const {
    if (a_.vector) {
      start_own(member, from);
    } else {
      start_runs(member, from);
    }
  }

  // Reads this thread's voxels, once the copies have landed.
  __device__ __forceinline__ void read(const void *member, const Source<kV> &from,
                                       Numbers<Element, kC, kV> &z) const {
    if (a_.vector) {
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        const unsigned char *at = row(k, kPitch) + lane_ * kV * kElement;
        z.set_neighbours(k, [at](auto bits) {
          return *reinterpret_cast<const decltype(bits) *>(at);
        });
      }
    } else if (a_.interleaved) {
      read_interleaved(memory_ + misalignment(member, from, 0), z);
    } else {
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        const unsigned char *at = row(k, kPitch) + misalignment(member, from, k);
#pragma unroll
        for (int i = 0; i < kV; ++i) {
          z.set(k, i, element_at(at, lane_ + i * kWarpLanes));
        }
      }
    }
  }

private:
  __device__ __forceinline__ unsigned char *row(int k, int pitch) const {
    return memory_ + k * pitch;
  }

  __device__ __forceinline__ static Element element_at(const unsigned char *at, int index) {
    return reinterpret_cast<const Element *>(at)[index];
  }

  __device__ __forceinline__ std::uintptr_t address(const void *member, const Source<kV> &from,
                                                    int k) const {
    const std::int64_t offset = from.offset + k * a_.member.class_stride;
    return reinterpret_cast<std::uintptr_t>(static_cast<const Element *>(member) + offset);
  }

  __device__ __forceinline__ int misalignment(const void *member, const Source<kV> &from,
                                              int k) const {
    return static_cast<int>(address(member, from, k) % 16);
  }

  __device__ __forceinline__ void start_own(const void *member, const Source<kV> &from) const {
    constexpr int kOwn = kV * kElement;
    if (lane_ * kV < from.copies) {
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        start_copy<kOwn>(row(k, kPitch) + lane_ * kOwn,
                         reinterpret_cast<const void *>(address(member, from, k)), kOwn);
      }
    }
  }

  __device__ __forceinline__ void start_runs(const void *member, const Source<kV> &from) const {
    if (from.copies == 0) {
      return;
    }
    const int pitch = a_.interleaved ? kRow : kPitch;
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      const std::uintptr_t first = address(member, from, a_.interleaved ? 0 : k);
      const int shift = static_cast<int>(first % 16);
      const std::uintptr_t begin = first - static_cast<unsigned>(shift) +
                                   static_cast<unsigned>(a_.interleaved ? k * kRow : 0);
      const int bytes = shift + from.count * kElement * (a_.interleaved ? kC : 1) -
                        (a_.interleaved ? k * kRow : 0);
      start_chunk(row(k, pitch), begin, lane_, bytes);
      if (lane_ == 0) { // a row of unaligned voxels reaches into one chunk more
        start_chunk(row(k, pitch), begin, kRow / 16, bytes);
      }
    }
  }

  __device__ __forceinline__ static void start_chunk(unsigned char *row, std::uintptr_t begin,
                                                     int chunk, int bytes) {
    const int left = bytes - chunk * 16;
    if (left > 0 && chunk <= kRow / 16) {
      start_copy<16>(row + chunk * 16,
                     reinterpret_cast<const void *>(begin + static_cast<unsigned>(chunk * 16)),
                     left < 16 ? left : 16);
    }
  }

  __device__ __forceinline__ void read_interleaved(const unsigned char *at,
                                                   Numbers<Element, kC, kV> &z) const {
    constexpr int kVoxel = kC * kElement;
    constexpr int kPacket = kVoxel < 16 ? kVoxel : 16;
    constexpr bool kPackets = kVoxel % kPacket == 0 && (kPacket & (kPacket - 1)) == 0;
    if constexpr (kPackets) {
      if (reinterpret_cast<std::uintptr_t>(at) % kPacket == 0) {
#pragma unroll
        for (int i = 0; i < kV; ++i) {
          const unsigned char *voxel = at + (lane_ + i * kWarpLanes) * kVoxel;
          using Bits = typename Packet<kPacket>::Type;
          constexpr int kEach = kPacket / kElement;
#pragma unroll
          for (int first = 0; first < kC; first += kEach) {
            union {
              Bits bits;
              Element elements[kEach];
            } packet;
            packet.bits = *reinterpret_cast<const Bits *>(voxel + first * kElement);
#pragma unroll
            for (int k = 0; k < kEach; ++k) {
              z.set(first + k, i, packet.elements[k]);
            }
          }
        }
        return;
      }
    }
#pragma unroll
    for (int i = 0; i < kV; ++i) {
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        z.set(k, i, element_at(at, (lane_ + i * kWarpLanes) * kC + k));
      }
    }
  }

  const PassArguments &a_;
  unsigned char *memory_;
  int lane_;
};

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
    const bool copied = a_.copies_ahead &&
                        (a_.vector || (a_.runs && lie_in_one_row(a_.grid, first, count)));
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
                                       const std::int64_t *offsets, Numbers<Element, kC, kV> &z) const {
    const Element *data = static_cast<const Element *>(member);
    if (a_.vector) {
      if (lane_ * kV < from.count) {
#pragma unroll
        for (int k = 0; k < kC; ++k) {
          const Element *at = data + from.offset + k * a_.member.class_stride;
          z.set_neighbours(k, [at](auto bits) {
            return __ldcs(reinterpret_cast<const decltype(bits) *>(at));
          });
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
