// The pass of temperature scaling on the CPU: loss, gradient and Hessian by inverse temperatures.
#pragma once

#include <cstdint>
#include <vector>

#include "core/temperature.h"

namespace fastcal::cpu {

// Sums are those of fixed chunks of voxels in a fixed order: the same bits for any n_threads.
void temperature_sums(const std::vector<std::int64_t> &shape, const TemperatureProblem &problem,
                      int n_threads);

} // namespace fastcal::cpu
