// The fused pass on the CPU. Views are given over the voxel axes `shape` in logical order; the pass
// chooses its own order and its own blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "core/problem.h"

namespace fastcal::cpu {

struct Members {
  std::vector<View> views;
  std::vector<double> weights;
  std::vector<double> temperatures;
};

// Members in, maps out, statistics added.
void ensemble_statistics(const std::vector<std::int64_t> &shape, std::int64_t classes,
                         const Members &members, const Reading &reading, const Finish &finish,
                         int n_threads);

// One member into the state [layout.planes(), *shape].
void ensemble_accumulate(const std::vector<std::int64_t> &shape, const View &member, double weight,
                         double temperature, const Reading &reading, const StateLayout &layout,
                         const View &state, int n_threads);

// Maps out and statistics added, from the state.
void ensemble_finalize(const std::vector<std::int64_t> &shape, const View &state,
                       const StateLayout &layout, std::int64_t n_members, double total_weight,
                       const Reading &reading, const Finish &finish, int n_threads);

} // namespace fastcal::cpu
