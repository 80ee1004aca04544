// The fused pass on the CPU. Views are given over the voxel axes `shape` in their logical order;
// the pass chooses the order in which it visits them, and its blocks.
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

// Reads the members, writes the maps and adds to the statistics.
void ensemble_statistics(const std::vector<std::int64_t> &shape, std::int64_t classes,
                         const Members &members, const Reading &reading, const Finish &finish,
                         int n_threads);

// Adds one member to the state [layout.planes(), *shape].
void ensemble_accumulate(const std::vector<std::int64_t> &shape, const View &member, double weight,
                         double temperature, const Reading &reading, const StateLayout &layout,
                         const View &state, int n_threads);

// Writes the maps and adds to the statistics, from the state.
void ensemble_finalize(const std::vector<std::int64_t> &shape, const View &state,
                       const StateLayout &layout, const MemberTotals &totals,
                       const Reading &reading, const Finish &finish, int n_threads);

} // namespace fastcal::cpu
