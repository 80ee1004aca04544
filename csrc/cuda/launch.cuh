// Picks the kernel for an element type and a class count, sizes its grid and starts it.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "core/expects.h"
#include "cuda/device.h"
#include "cuda/ensemble.cuh"
#include "cuda/launch.h"

namespace fastcal::cuda {

template <typename Element> struct Chosen {
  using Kernel = void (*)(const PassArguments);
  Kernel kernel;
  int voxels_per_thread;
};

// The first tier, from kIndex on, that holds the classes.
template <typename Element, int kIndex = 0> Chosen<Element> choose_tier(std::int64_t classes) {
  constexpr int kTier = kTiers[kIndex];
  constexpr int kV = voxels_per_thread(sizeof(Element), kTier);
  if constexpr (kIndex + 1 < kTierCount) {
    if (classes > kTier) {
      return choose_tier<Element, kIndex + 1>(classes);
    }
  }
  return {ensemble_pass<Element, kTier, kV, false>, kV};
}

template <typename Element> Chosen<Element> choose(const PassArguments &a) {
  const bool softmax = a.reading.from_logits && !a.reading.logit_space && !a.reading.multilabel &&
                       a.reading.activation == Activation::kSoftmax;
  if constexpr (sizeof(Element) < 8) { // double keeps no classes in registers
    if (softmax && a.n_members > 0 && a.split_shift > 0) {
      return {ensemble_pass<Element, kLastTier, 1, true>, 1};
    }
    if (softmax && a.n_members > 0 && a.classes > 1 && a.classes <= kLastTier) {
      return choose_tier<Element>(a.classes);
    }
  }
  constexpr int kV = 16 / static_cast<int>(sizeof(Element));
  if (a.classes <= kMaxVectorClasses) {
    return {ensemble_pass<Element, 0, kV, false>, kV};
  }
  return {ensemble_pass<Element, 0, 1, false>, 1};
}

// Whether a member's voxels may be read kV at a time: they must be neighbours in memory, aligned,
// and in the same row.
inline bool reads_vectors(const PassArguments &a, int element_bytes, int voxels,
                          const MemberPointers &members) {
  const Grid &grid = a.grid;
  if (voxels == 1 || grid.axes == 0 || members.count == 0) {
    return false;
  }
  const int last = grid.axes - 1;
  bool fits = a.member.strides[last] == 1 && grid.extents[last] % voxels == 0 &&
              a.group_voxels % voxels == 0 && a.member.class_stride % voxels == 0;
  for (int axis = 0; axis < last; ++axis) {
    fits = fits && a.member.strides[axis] % voxels == 0;
  }
  for (std::int64_t m = 0; fits && m < members.count; ++m) {
    const auto address = reinterpret_cast<std::uintptr_t>(members.entries[m].data);
    fits = address % static_cast<std::uintptr_t>(voxels * element_bytes) == 0;
  }
  return fits;
}

template <typename Element>
Error launch_pass(PassArguments a, const MemberPointers &members, const Place &place) {
  using R = Real<Element>;
  const Chosen<Element> chosen = choose<Element>(a);
  const int width = kWarpLanes * chosen.voxels_per_thread;
  a.vector = reads_vectors(a, sizeof(Element), chosen.voxels_per_thread, members);
  const std::int64_t tiles = (a.group_voxels + width - 1) / width;
  expects(tiles < kMaxIndex, "voxels must fit in fewer than 2^31 tiles of 32 or more");
  a.tiles = static_cast<std::uint32_t>(tiles);
  a.tile_bytes = tile_bytes<R>(a, width);
  int warps = kMaxWarps;
  if (const Error error = plan_shared(a, sizeof(R), place, warps)) {
    return error;
  }
  const auto kernel = chosen.kernel;
  if (a.shared.bytes > kDefaultSharedBytes) {
    // Always the most that a block may have, and not what this launch needs: another thread may be
    // between its own call and its launch of the same kernel.
    std::int64_t most = 0;
    if (const Error error = shared_limit(place.device, &most)) {
      return error;
    }
    FASTCAL_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(most)));
  }
  int resident = 1;
  if (a.counting.wanted || a.tile_workspace != nullptr) {
    FASTCAL_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &resident, kernel, warps * kWarpLanes, static_cast<std::size_t>(a.shared.bytes)));
  }
  GridSize grid;
  if (const Error error = plan_grid(a, place, resident, warps, width, &grid)) {
    return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.rows));
  config.blockDim = dim3(static_cast<unsigned>(warps * kWarpLanes));
  config.dynamicSmemBytes = static_cast<std::size_t>(a.shared.bytes);
  config.stream = static_cast<cudaStream_t>(place.stream);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, a));
  return {};
}

} // namespace fastcal::cuda
