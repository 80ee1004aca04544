// Plans the shared memory and the grid of a pass, and starts its kernel.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/device.h"
#include "cuda/launch.h"

namespace fastcal::cuda {

using PassKernel = void (*)(const PassArguments);

// `width` is the number of voxels in a tile.
inline Error start_pass(PassKernel kernel, PassArguments &a, std::int64_t real_bytes, int width,
                        const Place &place) {
  int warps = kMaxWarps;
  if (const Error error = plan_shared(a, real_bytes, place, warps)) {
    return error;
  }
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
  if (a.counting.wanted || a.persistent || a.tile_workspace != nullptr) {
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
