// Picks the kernel for an element type and a class count.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "core/expects.h"
#include "cuda/ensemble.cuh"
#include "cuda/launch.h"
#include "cuda/start.cuh"

namespace fastcal::cuda {

template <typename Element> struct Chosen {
  PassKernel kernel;
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
  const bool softmax = averages_softmax(a.reading);
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

template <typename Element>
Error launch_pass(PassArguments a, const MemberPointers &members, const Place &place) {
  using R = Real<Element>;
  const Chosen<Element> chosen = choose<Element>(a);
  const int width = kWarpLanes * chosen.voxels_per_thread;
  a.vector = reads_vectors(a, sizeof(Element), chosen.voxels_per_thread, members);
  const std::int64_t class_bytes =
      a.member.class_stride * static_cast<std::int64_t>(sizeof(Element));
  a.class_bytes = class_bytes == static_cast<std::uint32_t>(class_bytes)
                      ? static_cast<std::uint32_t>(class_bytes)
                      : 0;
  const std::int64_t tiles = (a.group_voxels + width - 1) / width;
  expects(tiles < kMaxIndex, "voxels must fit in fewer than 2^31 tiles of 32 or more");
  a.tiles = static_cast<std::uint32_t>(tiles);
  a.tile_bytes = tile_bytes<R>(a, width);
  return start_pass(chosen.kernel, a, sizeof(R), width, place);
}

} // namespace fastcal::cuda
