// The kernel of plain passes: the softmax of the logits of a few classes, whose probabilities are
// averaged. A warp carries tile after tile through both stages, in registers.
#pragma once

#include <cstdint>

#include "cuda/count.cuh"
#include "cuda/feed.cuh"
#include "cuda/plain_finish.cuh"
#include "cuda/shared_memory.cuh"

namespace fastcal::cuda {

// A tile as the statistics read it.
template <int kV>
__device__ __forceinline__ Tile<float> counted_tile(const PlainMemory &memory,
                                                    const Voxels<kV> &voxels, int lane) {
  Tile<float> tile{};
  tile.sum = memory.at<float>(memory.plan.sum);
  tile.target = memory.at<int>(memory.plan.target);
  tile.regions = memory.at<std::uint8_t>(memory.plan.regions);
  tile.width = Voxels<kV>::kWidth;
  tile.count = voxels.count;
  tile.first = voxels.tile_first;
  tile.lane = lane;
  return tile;
}

// Adds what the packed counters hold to the votes in shared memory, and empties them.
template <int kC, int kV>
__device__ __forceinline__ void spill_votes(float *votes, const Voxels<kV> &voxels, bool first,
                                            PlainSums<kC, kV, true> &sums) {
#pragma unroll
  for (int k = 0; k < kC; ++k) {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      float &at = votes[k * Voxels<kV>::kWidth + voxels.slot + v * voxels.step];
      at = (first ? 0.0F : at) + static_cast<float>(sums.votes_of(k, v));
    }
  }
  sums.clear_votes();
}

// Counts the voxels of a tile, whose probabilities leave the registers for it.
template <int kC, int kV>
__device__ __forceinline__ void count_plain(const PassArguments &a, const Counts<float> &counts,
                                            const Tile<float> &tile, const Voxels<kV> &voxels,
                                            const float (&p)[kC][kV], const int (&label)[kV]) {
#pragma unroll
  for (int k = 0; k < kC; ++k) {
    float *const plane = tile.sum + k * tile.width;
    if (a.vector) {
      write_plane<kV>(plane + voxels.slot, p[k]);
    } else {
      voxels.leave(plane, p[k]);
    }
  }
  voxels.leave(tile.target, label);
  __syncwarp();
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    Outcome<float> one;
    one.finite = one.valid = tile.target[slot] >= 0;
    one.label = one.valid ? tile.target[slot] : 0; // -1 is left for what is not valid
    note_target<true>(a, counts, tile, slot, one);
  }
  __syncwarp();
  count_tile<true>(a, counts, tile);
  __syncwarp(); // the next tile overwrites this one
}

template <typename Element, int kC, int kV, bool kFull>
__device__ __forceinline__ void plain_tile(const PassArguments &a, const Counts<float> &counts,
                                           const PlainMemory &memory, int lane, std::int64_t first,
                                           int count, Feed<Element, kC, kV> &feed) {
  const Source<kV> from = feed.source(first, count);
  Voxels<kV> voxels;
  voxels.tile_first = first;
  voxels.member_offset = from.offset;
  voxels.count = count;
  voxels.slot = a.vector ? lane * kV : lane;
  voxels.step = a.vector ? 1 : kWarpLanes;
  voxels.row = a.vector || lie_in_one_row(a.grid, first, count);
  if (!a.vector && !feed.comes_by_copy(from)) { // a lane reads back only its own
#pragma unroll 1
    for (int slot = lane; slot < count; slot += kWarpLanes) {
      memory.at<std::int64_t>(memory.plan.offsets)[slot] =
          offset_of(a.grid, a.member.strides, first + slot);
    }
  }

  PlainSums<kC, kV, kFull> sums;
  sums.clear();
  if constexpr (kFull) {
    if (a.loads_state) {
      PlainState<kC, kV>{a, memory, voxels}.load(sums);
    }
  }
#pragma unroll 1
  for (int m = 0; m < a.n_members; ++m) {
    if constexpr (kFull) {
      if (a.keeps_votes && m > 0 && m % kPackedVotes == 0) {
        spill_votes(memory.at<float>(memory.plan.votes), voxels, m == kPackedVotes, sums);
      }
    }
    const MemberEntry member = member_of(a, m);
    Numbers<Element, kC, kV> numbers;
    feed.take(member, from, memory.at<std::int64_t>(memory.plan.offsets), numbers);
    sums.add(a, member, numbers);
  }

  if constexpr (kFull) {
    if (a.stores_state) {
      PlainState<kC, kV>{a, memory, voxels}.store(sums);
    }
    if (!a.finishes) {
      return;
    }
  }
  int label[kV];
  finish_plain(a, memory, voxels, sums, label);
  if constexpr (kFull) {
    if (a.counting.wanted) {
      count_plain(a, counts, counted_tile(memory, voxels, lane), voxels, sums.sum, label);
    }
  }
}

// What the kernel does. kFull writes all maps, counts, and reads and writes a streamed state.
// Without it the maps are those that the mean probabilities alone give.
template <typename Element, int kC, int kV, bool kFull>
__device__ __forceinline__ void plain_warp(const PassArguments &a) {
  constexpr int kWidth = kWarpLanes * kV;
  unsigned char *const shared = shared_memory();
  const unsigned warp = threadIdx.x / kWarpLanes;
  const unsigned warps = blockDim.x / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const PlainMemory memory{shared + a.shared.tiles + warp * a.tile_bytes, a.plain};
  Feed<Element, kC, kV> feed(a, memory.begin + a.plain.ring, lane);
  Counts<float> counts{a, shared, 0};
  const bool counting = kFull && a.counting.wanted;
  if (counting) {
    load_thresholds(a, counts);
  }
  const std::uint32_t first_tile = blockIdx.x * warps + warp;
  // There is one group where nothing is counted.
  for (std::uint32_t group = kFull ? blockIdx.y : 0; group < (kFull ? a.groups : 1);
       group += gridDim.y) {
    if (counting) {
      counts.group = group;
      clear_counts(a, counts);
      __syncthreads();
    }
    feed.open(group, first_tile);
    for (std::uint32_t i = first_tile; i < a.tiles; i += tile_step()) {
      const std::int64_t first = std::int64_t{i} * kWidth;
      const std::int64_t left = a.group_voxels - first;
      plain_tile<Element, kC, kV, kFull>(a, counts, memory, lane, group * a.group_voxels + first,
                                         left < kWidth ? static_cast<int>(left) : kWidth, feed);
    }
    feed.close();
    if (counting) {
      __syncthreads();
      add_counts(a, counts);
      __syncthreads();
    }
  }
}

template <typename Element, int kC, int kV, bool kFull>
__global__ void __launch_bounds__(kMaxWarps *kWarpLanes, plain_blocks(sizeof(Element), kC, kFull))
    plain_pass(const __grid_constant__ PassArguments a) {
  plain_warp<Element, kC, kV, kFull>(a);
}

} // namespace fastcal::cuda
