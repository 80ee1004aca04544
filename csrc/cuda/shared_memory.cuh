// The memory that the warps of a block share, as large as the launch says.
#pragma once

#include <cuda_runtime.h>

namespace fastcal::cuda {

#ifndef FASTCAL_CUDA_SHIM
__device__ __forceinline__ unsigned char *shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
#endif

} // namespace fastcal::cuda
