// The pass of temperature scaling on an NVIDIA GPU: loss, gradient and Hessian by inverse
// temperatures. It is asynchronous on the caller's stream and allocates nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "core/temperature.h"
#include "cuda/ensemble.h"
#include "cuda/error.h"

namespace fastcal::cuda {

// Bytes of device memory for the sums of every piece and a table of temperatures.
std::int64_t temperature_workspace_bytes(std::int64_t voxels, std::int64_t classes, bool per_class);

// Adds to counts and sums. The inverse temperatures lie on the host.
Error temperature_sums(const std::vector<std::int64_t> &shape, const TemperatureProblem &problem,
                       const Place &place);

} // namespace fastcal::cuda
