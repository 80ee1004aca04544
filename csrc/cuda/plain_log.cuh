// The logarithm of the mathematics library, where one per voxel costs little.
#pragma once

#include <cuda_runtime.h>

namespace fastcal::cuda {

__device__ __forceinline__ float plain_log(float x) { return logf(x); }
__device__ __forceinline__ double plain_log(double x) { return log(x); }

} // namespace fastcal::cuda
