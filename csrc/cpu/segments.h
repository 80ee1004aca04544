// The pass over predicted segments on the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "core/segment_problem.h"

namespace fastcal::cpu {

// Adds the sums of every batch item (the outermost axis of `shape`) and class. They are integers,
// so the result is bit-identical for any n_threads.
void segment_sums(const std::vector<std::int64_t> &shape, const SegmentProblem &problem,
                  int n_threads);

} // namespace fastcal::cpu
