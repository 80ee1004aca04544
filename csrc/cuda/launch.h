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

// Shared memory of a block, given tile_bytes: lowers `warps` until it fits, and sends the tiles to
// the workspace where not even one does.
Error plan_shared(PassArguments &a, std::int64_t real_bytes, const Place &place, int &warps);

// Blocks of a grid that stays resident and loops over its tiles.
std::int64_t looping_blocks(const PassArguments &a, const Place &place, std::int64_t blocks,
                            int resident, int warps, int width);

// Brings the fractional words of every row of statistics below 2^40.
Error carry_sums(const CountingArguments &counting, std::int64_t groups, const Place &place);

// Writes host words to device memory by launches alone: no copy that a graph could not capture.
Error write_words(std::uint64_t *to, const std::uint64_t *from, std::int64_t count,
                  const Place &place);

} // namespace fastcal::cuda
