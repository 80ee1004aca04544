// The seam between the host's planning and the kernels of each element type.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/ensemble.h"

namespace fastcal::cuda {

struct MemberPointers {
  const MemberEntry *entries; // on the host
  std::int64_t count;
};

// One a file, so that they compile side by side.
Error launch_f32(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_f16(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_bf16(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_f64(const PassArguments &a, const MemberPointers &members, const Place &place);

// 64-bit words of a MemberEntry in a table.
constexpr std::int64_t kMemberWords = 3;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Of a table of 64-bit words in the workspace.
constexpr std::int64_t table_bytes(std::int64_t words) { return round_up(words * 8, 16); }

// Shared memory of a block, given tile_bytes: lowers `warps` until the tiles
// fit, then moves the histograms to device memory, then the tiles to the
// workspace.
Error plan_shared(PassArguments &a, std::int64_t real_bytes, const Place &place, int &warps);

struct GridSize {
  std::int64_t blocks = 1; // of a row
  std::int64_t rows = 1;   // a group of voxels each
};

// A grid that stays resident and loops over its tiles where blocks count or use
// the workspace; one tile a warp otherwise.
Error plan_grid(const PassArguments &a, const Place &place, int resident, int warps, int width,
                GridSize *grid);

// Brings the fractional words of every row of statistics below 2^40.
Error carry_sums(const CountingArguments &counting, std::int64_t groups, const Place &place);

// Writes host words to device memory by launches alone: no copy that a graph
// could not capture.
Error write_words(std::uint64_t *to, const std::uint64_t *from, std::int64_t count,
                  const Place &place);

} // namespace fastcal::cuda
