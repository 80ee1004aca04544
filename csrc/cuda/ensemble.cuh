// The kernel of all passes that are not plain (plain_pass.cuh): a warp carries a tile of voxels
// through both stages, tile after tile.
//
//   one shot     members -> sums -> maps, statistics
//   accumulate   state, member -> sums -> state
//   finalize     state -> sums -> maps, statistics
#pragma once

#include <cstdint>

#include "cuda/accumulate_by_class.cuh"
#include "cuda/accumulate_softmax.cuh"
#include "cuda/count.cuh"
#include "cuda/shared_memory.cuh"

namespace fastcal::cuda {

// kTier is the number of classes in registers, or 0 for class by class; kV is the number of voxels
// per thread; with kSplit the classes of a voxel are dealt out to several lanes.
template <typename Element, int kTier, int kV, bool kSplit>
__device__ __forceinline__ void pass_tile(const PassArguments &a,
                                          const Counts<Real<Element>> &counts,
                                          const Tile<Real<Element>> &tile) {
  if (a.loads_state) {
    load_state(a, tile);
  } else {
    clear_tile(a, tile, kTier == 0);
  }
  __syncwarp();
  if constexpr (kTier == 0) {
    accumulate_by_class<Element, kV>(a, tile);
  } else {
    accumulate_softmax<Element, kTier, kV, kSplit>(a, tile);
  }
  __syncwarp();
  if (a.stores_state) {
    store_state(a, tile);
  }
  if (a.finishes) {
    finish_tile<(kTier > 0)>(a, counts, tile);
  }
  __syncwarp();
}

template <typename Element, int kTier, int kV, bool kSplit>
__global__ void __launch_bounds__(kMaxWarps *kWarpLanes, blocks_per_processor(kTier, kV))
    ensemble_pass(const __grid_constant__ PassArguments a) {
  using R = Real<Element>;
  unsigned char *const shared = shared_memory();
  const unsigned warp = threadIdx.x / kWarpLanes;
  const unsigned warps = blockDim.x / kWarpLanes;
  const int width = kWarpLanes * kV;
  unsigned char *memory = shared + a.shared.tiles + warp * a.tile_bytes;
  if (kTier == 0 && a.tile_workspace != nullptr) { // the tiles of the other kernels always fit
    const std::int64_t block = std::int64_t{blockIdx.y} * gridDim.x + blockIdx.x;
    memory = a.tile_workspace + (block * warps + warp) * a.tile_bytes;
  }
  Tile<R> tile = make_tile<R>(a, memory, width, static_cast<int>(threadIdx.x) % kWarpLanes);
  Counts<R> counts{a, shared, 0};
  if (a.counting.wanted) {
    load_thresholds(a, counts);
  }
  // Indices have 32 bits, since what is alive during the whole of a tile costs registers. The host
  // makes sure that they suffice.
  for (std::uint32_t group = blockIdx.y; group < a.groups; group += gridDim.y) {
    if (a.counting.wanted) {
      counts.group = group;
      clear_counts(a, counts);
      __syncthreads();
    }
    for (std::uint32_t i = blockIdx.x * warps + warp; i < a.tiles; i += gridDim.x * warps) {
      const std::int64_t first = std::int64_t{i} * width;
      const std::int64_t left = a.group_voxels - first;
      tile.first = group * a.group_voxels + first;
      tile.count = left < width ? static_cast<int>(left) : width;
      pass_tile<Element, kTier, kV, kSplit>(a, counts, tile);
    }
    if (a.counting.wanted) {
      __syncthreads();
      add_counts(a, counts);
      __syncthreads();
    }
  }
}

} // namespace fastcal::cuda
