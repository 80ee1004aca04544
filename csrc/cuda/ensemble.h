// The fused pass on an NVIDIA GPU. This header does without those of CUDA. Every call is
// asynchronous on the caller's stream and allocates nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "core/problem.h"
#include "cuda/error.h"

namespace fastcal::cuda {

// Where a pass runs, and the memory it may use there.
struct Place {
  int device = 0;
  void *stream = nullptr;
  void *workspace = nullptr; // workspace_bytes() of device memory, aligned to 16 bytes
  std::int64_t workspace_bytes = 0;
};

// Members of the same shape, type and strides. `view` is the first of them.
struct Members {
  View view;
  std::vector<void *> addresses;
  std::vector<double> weights;
  std::vector<double> temperatures;
};

struct Size {
  std::int64_t classes = 0;
  std::int64_t planes = 0; // real numbers per voxel: sums, entropy, square, votes
  std::int64_t n_members = 0;
  std::int64_t n_cells = 0; // 0 without statistics
  std::int64_t rows = 0;    // of statistics per group, 0 without
  Dtype dtype = Dtype::kFloat32;
};

// Bytes of device memory that a pass of this size wants; 0 for all but large passes.
Error workspace_bytes(int device, const Size &size, std::int64_t *bytes);

// Reads the members, writes the maps and adds to the statistics.
Error ensemble_statistics(const std::vector<std::int64_t> &shape, std::int64_t classes,
                          const Members &members, const Reading &reading, const Finish &finish,
                          const double *thresholds, const Place &place);

// Adds one member to the state [layout.planes(), *shape].
Error ensemble_accumulate(const std::vector<std::int64_t> &shape, const Members &member,
                          const Reading &reading, const StateLayout &layout, const View &state,
                          const Place &place);

// Writes the maps and adds to the statistics, from the state.
Error ensemble_finalize(const std::vector<std::int64_t> &shape, const View &state,
                        const StateLayout &layout, const MemberTotals &totals,
                        const Reading &reading, const Finish &finish, const double *thresholds,
                        const Place &place);

} // namespace fastcal::cuda
