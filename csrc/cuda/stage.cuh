// A stage of the ring of a plain pass: what one member has for one tile, in shared memory.
#pragma once

#include <cstdint>

#include "cuda/async_copy.cuh"
#include "cuda/numbers.cuh"
#include "cuda/plain_voxels.cuh"

namespace fastcal::cuda {

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
        z.set_neighbours(k,
                         [at](auto bits) { return *reinterpret_cast<const decltype(bits) *>(at); });
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

} // namespace fastcal::cuda
