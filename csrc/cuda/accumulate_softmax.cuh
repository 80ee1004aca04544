// The first stage for the softmax of logits: a thread keeps the sums of up to 52 classes in
// registers from member to member.
#pragma once

#include <cstdint>

#include "cuda/tile.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

// Terms are added up in blocks of eight, which keeps the rounding error of many classes small.
constexpr int kSumBlock = 8;

// The sum over the lanes that share a voxel; they are a multiple of 32 / split apart.
template <bool kSplit, typename Real>
__device__ __forceinline__ Real sum_over_parts(Real value, int split_shift) {
  for (int bit = 0; kSplit && bit < split_shift; ++bit) {
    value = value + __shfl_xor_sync(0xffffffffU, value, kWarpLanes >> (bit + 1));
  }
  return value;
}

// What a thread carries from member to member, for kV voxels of up to kTier classes.
template <int kTier, int kV> struct Sums {
  float sum[kTier][kV];
  float entropy[kV];
  float square[kV];
};

// The classes of one thread: all of them, or one of the parts that they are dealt into.
template <bool kSplit> struct Share {
  int first;
  int classes; // counted from `first`
  int split_shift;
  int part;
};

// Where the voxels of a thread lie in the tile and, counted in elements from the first class of
// the thread, in a member: neighbours, which are read in one access, or a warp's width apart.
template <int kV, bool kNeighbours> struct Slots {
  static constexpr int kStep = kNeighbours ? 1 : kWarpLanes;
  static constexpr int kPlaces = kNeighbours ? 1 : kV;

  int first;
  int count; // of the tile
  std::int64_t offsets[kPlaces];

  __device__ __forceinline__ int of(int v) const { return first + v * kStep; }
  __device__ __forceinline__ bool holds(int v) const { return of(v) < count; }

  // The thread's values in a plane of the tile. Beyond the last voxel the plane has room.
  __device__ __forceinline__ void read(const float *plane, float (&values)[kV]) const {
    if constexpr (kNeighbours) {
      read_plane<kV>(plane + first, values);
    } else {
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        values[v] = holds(v) ? plane[of(v)] : 0.0F;
      }
    }
  }
  __device__ __forceinline__ void write(float *plane, const float (&values)[kV]) const {
    if constexpr (kNeighbours) {
      write_plane<kV>(plane + first, values);
    } else {
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        plane[of(v)] = values[v];
      }
    }
  }
};

// A number that the compiler must find in one register whenever it is used. Its multiples would
// otherwise be kept in many, from member to member.
__device__ __forceinline__ std::uint32_t in_one_register(std::uint32_t number) {
#ifndef FASTCAL_CUDA_SHIM
  asm volatile("" : "+r"(number));
#endif
  return number;
}

// Reads the classes of a thread, whose distance in bytes has 32 bits where `kNear`. Then an address
// takes one instruction, otherwise seven. The surplus classes of the tier hold minus infinity.
template <bool kNear, typename Element, int kTier, int kV, bool kSplit, bool kNeighbours>
__device__ __forceinline__ void
load_classes(const PassArguments &a, const Element *member, const Share<kSplit> &share,
             const Slots<kV, kNeighbours> &slots, float (&z)[kTier][kV]) {
  const std::uint32_t class_bytes = in_one_register(a.class_bytes);
#pragma unroll
  for (int k = 0; k < kTier; ++k) {
    const bool has = k < kLeastClasses<kTier, kSplit> || k < share.classes;
    if (!has) {
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        z[k][v] = -infinity<float>();
      }
      continue;
    }
    const auto place = [&](int i) {
      const Element *from = member + slots.offsets[i];
      if constexpr (kNear) {
        const std::uint64_t bytes = std::uint64_t{class_bytes} * static_cast<std::uint32_t>(k);
        return reinterpret_cast<const Element *>(reinterpret_cast<const char *>(from) + bytes);
      } else {
        return from + k * a.member.class_stride;
      }
    };
    if constexpr (kNeighbours) {
      load_run<Element, kV>(place(0), z[k]);
    } else {
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        float one[1];
        load_run<Element, 1>(place(v), one);
        z[k][v] = one[0];
      }
    }
  }
}

template <typename Element, int kTier, int kV, bool kSplit, bool kNeighbours>
__device__ __forceinline__ void
load_member(const PassArguments &a, const Element *member, const Share<kSplit> &share,
            const Slots<kV, kNeighbours> &slots, float (&z)[kTier][kV]) {
  if (a.class_bytes != 0) {
    load_classes<true>(a, member, share, slots, z);
  } else {
    load_classes<false>(a, member, share, slots, z);
  }
}

// The largest logit of each voxel. NaN is passed over here and shows in the exponentials.
template <int kTier, int kV, bool kSplit>
__device__ __forceinline__ void find_top(const float (&z)[kTier][kV], const Share<kSplit> &share,
                                         float (&top)[kV]) {
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    top[v] = z[0][v];
#pragma unroll
    for (int k = 1; k < kTier; ++k) {
      top[v] = fmaxf(top[v], z[k][v]);
    }
    for (int bit = 0; kSplit && bit < share.split_shift; ++bit) {
      top[v] = fmaxf(top[v], __shfl_xor_sync(0xffffffffU, top[v], kWarpLanes >> (bit + 1)));
    }
  }
}

// Adds a vote for the lowest class whose logit is the largest.
template <int kTier, int kV, bool kSplit, bool kNeighbours>
__device__ __forceinline__ void add_votes(int classes, const float (&z)[kTier][kV],
                                          const float (&top)[kV], const Share<kSplit> &share,
                                          const Tile<float> &tile,
                                          const Slots<kV, kNeighbours> &slots) {
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    int best = classes; // where all are NaN
#pragma unroll
    for (int k = kTier - 1; k >= 0; --k) {
      best = z[k][v] == top[v] ? share.first + k : best;
    }
    for (int bit = 0; kSplit && bit < share.split_shift; ++bit) {
      const int other = __shfl_xor_sync(0xffffffffU, best, kWarpLanes >> (bit + 1));
      best = other < best ? other : best;
    }
    if (best < classes && share.part == 0 && slots.holds(v)) {
      tile.votes_at(best, slots.of(v)) += 1.0F;
    }
  }
}

// Turns z into e^((z - top) / T). `total` is the sum of it over the classes, `moment` the sum of
// its products with z - top.
template <int kTier, int kV, bool kMoment>
__device__ __forceinline__ void exponentiate(float (&z)[kTier][kV], const float (&top)[kV],
                                             float factor, float (&total)[kV],
                                             float (&moment)[kV]) {
  constexpr float kLowest = -3e38F; // since -infinity times 0 would be NaN
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    total[v] = 0.0F;
    moment[v] = 0.0F;
#pragma unroll
    for (int first = 0; first < kTier; first += kSumBlock) {
      float part = 0.0F;
      float moment_part = 0.0F;
#pragma unroll
      for (int k = first; k < (first + kSumBlock < kTier ? first + kSumBlock : kTier); ++k) {
        const float d = z[k][v] - top[v];
        z[k][v] = exp_scaled(d, factor);
        part = k == first ? z[k][v] : part + z[k][v];
        if (kMoment) {
          moment_part = fused(z[k][v], fmaxf(d, kLowest), moment_part);
        }
      }
      total[v] = first == 0 ? part : total[v] + part;
      moment[v] = moment[v] + moment_part;
    }
  }
}

// Adds one member's numbers, z, to the sums.
template <int kTier, int kV, bool kSplit, bool kNeighbours>
__device__ __forceinline__ void add_softmax(const PassArguments &a, const MemberEntry &member,
                                            const Share<kSplit> &share, const Tile<float> &tile,
                                            const Slots<kV, kNeighbours> &slots,
                                            float (&z)[kTier][kV], Sums<kTier, kV> &sums) {
  const float weight = member.weight_single;
  const float inverse_temperature = member.inverse_temperature_single;
  float top[kV];
  float total[kV];
  float moment[kV];
  find_top(z, share, top);
  if (a.keeps_votes) {
    add_votes(a.classes, z, top, share, tile, slots);
  }
  if (a.keeps_entropy) {
    exponentiate<kTier, kV, true>(z, top, exp_factor(inverse_temperature), total, moment);
  } else {
    exponentiate<kTier, kV, false>(z, top, exp_factor(inverse_temperature), total, moment);
  }
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    total[v] = sum_over_parts<kSplit>(total[v], share.split_shift);
    const float inverse = divide_approximate(1.0F, total[v]);
    const float scaled = inverse * weight;
    if (a.keeps_entropy) {
      moment[v] = sum_over_parts<kSplit>(moment[v], share.split_shift);
      const float h = fused(-moment[v] * inverse, inverse_temperature, log_natural(total[v]));
      sums.entropy[v] = fused(h, weight, sums.entropy[v]);
    }
    if (a.keeps_square) {
      float squares = 0.0F;
#pragma unroll
      for (int k = 0; k < kTier; ++k) {
        squares = fused(z[k][v], z[k][v], squares);
      }
      squares = sum_over_parts<kSplit>(squares, share.split_shift);
      sums.square[v] = fused(squares * inverse, scaled, sums.square[v]);
    }
#pragma unroll
    for (int k = 0; k < kTier; ++k) {
      sums.sum[k][v] = fused(z[k][v], scaled, sums.sum[k][v]);
    }
  }
}

template <int kTier, int kV, bool kSplit, bool kNeighbours>
__device__ __forceinline__ void
open_sums(const PassArguments &a, const Share<kSplit> &share, const Tile<float> &tile,
          const Slots<kV, kNeighbours> &slots, Sums<kTier, kV> &sums) {
  if (!a.loads_state) {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      sums.entropy[v] = sums.square[v] = 0.0F;
#pragma unroll
      for (int k = 0; k < kTier; ++k) {
        sums.sum[k][v] = 0.0F;
      }
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kTier; ++k) {
    if (k < share.classes) {
      slots.read(&tile.sum_at(share.first + k, 0), sums.sum[k]);
    }
  }
  if (a.keeps_entropy) {
    slots.read(tile.entropy, sums.entropy);
  }
  if (a.keeps_square) {
    slots.read(tile.square, sums.square);
  }
}

template <int kTier, int kV, bool kSplit, bool kNeighbours>
__device__ __forceinline__ void
close_sums(const PassArguments &a, const Share<kSplit> &share, const Tile<float> &tile,
           const Slots<kV, kNeighbours> &slots, const Sums<kTier, kV> &sums) {
#pragma unroll
  for (int k = 0; k < kTier; ++k) {
    if (k < share.classes) {
      slots.write(&tile.sum_at(share.first + k, 0), sums.sum[k]);
    }
  }
  if (a.keeps_entropy && share.part == 0) {
    slots.write(tile.entropy, sums.entropy);
  }
  if (a.keeps_square && share.part == 0) {
    slots.write(tile.square, sums.square);
  }
}

// Adds up all members of the kV voxels from `slot` on. A thread that has no voxel, but must take
// part in exchanges between lanes, reads the voxel of another. So does one that lacks a few.
template <typename Element, int kTier, int kV, bool kNeighbours, bool kSplit>
__device__ __forceinline__ void accumulate_voxels(const PassArguments &a,
                                                  const Share<kSplit> &share,
                                                  const Tile<float> &tile, int slot) {
  Slots<kV, kNeighbours> slots{slot, tile.count, {}};
  const bool active = slots.holds(0);
  if (!kSplit && !active) {
    return;
  }
#pragma unroll
  for (int i = 0; i < slots.kPlaces; ++i) {
    const std::int64_t voxel = tile.first + (slots.holds(i) ? slots.of(i) : active ? slot : 0);
    slots.offsets[i] =
        offset_of(a.grid, a.member.strides, voxel) + share.first * a.member.class_stride;
  }
  Sums<kTier, kV> sums;
  open_sums(a, share, tile, slots, sums);
#pragma unroll 1
  for (int m = 0; m < a.n_members; ++m) {
    const MemberEntry &member = member_of(a, m);
    float z[kTier][kV];
    load_member(a, static_cast<const Element *>(member.data), share, slots, z);
    add_softmax(a, member, share, tile, slots, z, sums);
  }
  if (active) {
    close_sums(a, share, tile, slots, sums);
  }
}

// Each thread takes kV neighbours where members may be read several at a time, and as many voxels a
// warp's width apart otherwise, so that as many bytes are on their way.
template <typename Element, int kTier, int kV, bool kSplit>
__device__ __forceinline__ void accumulate_softmax(const PassArguments &a,
                                                   const Tile<float> &tile) {
  if constexpr (kSplit) {
    const int voxels = kWarpLanes >> a.split_shift;
    const int part = tile.lane / voxels;
    const int each = (a.classes + (1 << a.split_shift) - 1) >> a.split_shift;
    const int left = a.classes - part * each;
    const Share<true> share{part * each, left < each ? left : each, a.split_shift, part};
    for (int slot = tile.lane % voxels; slot < kWarpLanes; slot += voxels) {
      accumulate_voxels<Element, kTier, 1, true>(a, share, tile, slot);
    }
  } else {
    const Share<false> share{0, a.classes, 0, 0};
    if (kV == 1 || a.vector) {
      accumulate_voxels<Element, kTier, kV, true>(a, share, tile, tile.lane * kV);
    } else {
      accumulate_voxels<Element, kTier, kV, false>(a, share, tile, tile.lane);
    }
  }
}

} // namespace fastcal::cuda
