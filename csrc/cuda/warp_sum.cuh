// The sum of a warp, by a tree whose order is always the same.
#pragma once

#include <cuda_runtime.h>

#include "cuda/policy.h"

namespace fastcal::cuda {

template <typename Number> __device__ __forceinline__ Number tree_sum(Number value) {
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffU, value, distance);
  }
  return value;
}

} // namespace fastcal::cuda
