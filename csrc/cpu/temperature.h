// The pass of temperature scaling on the CPU: loss, gradient and Hessian by inverse temperatures.
#pragma once

#include <cstdint>
#include <vector>

#include "core/temperature.h"

namespace fastcal::cpu {

// Adds up the sums of fixed chunks of voxels in a fixed order, so that the results are
// bit-identical for any n_threads.
void temperature_sums(const std::vector<std::int64_t> &shape, const TemperatureProblem &problem,
                      int n_threads);

} // namespace fastcal::cpu
