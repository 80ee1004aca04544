// Picks the kernel of a plain pass and lays out what its warps keep.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "core/expects.h"
#include "cuda/launch.h"
#include "cuda/plain_pass.cuh"
#include "cuda/start.cuh"

namespace fastcal::cuda {

struct PlainKernel {
  PassKernel kernel;
  int voxels_per_thread;
  int stage_bytes;
  int stages;
};

template <typename Element, int kC = 2> PlainKernel choose_plain(std::int64_t classes, bool full) {
  if constexpr (kC < kMaxPlainClasses) {
    if (classes > kC) {
      return choose_plain<Element, kC + 1>(classes, full);
    }
  }
  constexpr int kV = plain_voxels(sizeof(Element), kC);
  return {full ? plain_pass<Element, kC, kV, true> : plain_pass<Element, kC, kV, false>, kV,
          stage_bytes(sizeof(Element), kC, kV), ring_stages(sizeof(Element), kC, kV)};
}

template <typename Element>
Error launch_plain(PassArguments a, const MemberPointers &members, const Place &place) {
  const bool full = a.counting.wanted || a.keeps_entropy || a.keeps_square || a.keeps_votes ||
                    a.loads_state || a.stores_state || a.normalise;
  const PlainKernel chosen = choose_plain<Element>(a.classes, full);
  const int width = kWarpLanes * chosen.voxels_per_thread;
  const std::int64_t tiles = (a.group_voxels + width - 1) / width;
  expects(tiles < kMaxIndex, "voxels must fit in fewer than 2^31 tiles of 32 or more");
  a.tiles = static_cast<std::uint32_t>(tiles);
  if (const Error error =
          plan_plain_access(a, sizeof(Element), chosen.voxels_per_thread, members, place.device)) {
    return error;
  }
  plan_plain_tile(a, width, std::int64_t{chosen.stages} * chosen.stage_bytes);
  return start_pass(chosen.kernel, a, sizeof(float), width, place);
}

} // namespace fastcal::cuda
