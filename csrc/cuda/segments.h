// The pass over predicted segments on an NVIDIA GPU. It is asynchronous on the caller's stream and
// allocates nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "core/segment_problem.h"
#include "cuda/ensemble.h"
#include "cuda/error.h"

namespace fastcal::cuda {

// Adds the sums of every batch item (the outermost axis of `shape`) and class. It needs no
// workspace.
Error segment_sums(const std::vector<std::int64_t> &shape, const SegmentProblem &problem,
                   const Place &place);

} // namespace fastcal::cuda
