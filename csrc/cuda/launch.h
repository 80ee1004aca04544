// What lies between the planning on the host and the kernels of each element type.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/delivery.h"
#include "cuda/ensemble.h"

namespace fastcal::cuda {

struct MemberPointers {
  const MemberEntry *entries; // on the host
  std::int64_t count;
};

// Whether the members are logits whose softmax is averaged.
inline bool averages_softmax(const Reading &reading) {
  return reading.from_logits && !reading.logit_space && !reading.multilabel &&
         reading.activation == Activation::kSoftmax;
}

// Whether plain_pass.cuh does this pass.
inline bool is_plain(const PassArguments &a) {
  return averages_softmax(a.reading) && a.n_members > 0 && a.classes > 1 &&
         a.classes <= kMaxPlainClasses && a.member.dtype != Dtype::kFloat64;
}

// Whether a member's voxels may be read so many at a time: they must be neighbours in memory,
// aligned, and in the same row.
bool reads_vectors(const PassArguments &a, int element_bytes, int voxels,
                   const MemberPointers &members);

// How the threads of a plain pass reach the members, the maps and the state.
Error plan_plain_access(PassArguments &a, int element_bytes, int voxels,
                        const MemberPointers &members, int device);

// Lays out what a warp of a plain pass keeps: a ring of so many bytes, and what else is needed.
void plan_plain_tile(PassArguments &a, int width, std::int64_t ring);

// Each in its own file, so that they compile in parallel.
Error launch_f32(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_f16(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_bf16(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_plain_f32(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_plain_f16(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_plain_bf16(const PassArguments &a, const MemberPointers &members, const Place &place);
Error launch_f64(const PassArguments &a, const MemberPointers &members, const Place &place);

// 64-bit words of one MemberEntry in a table.
constexpr std::int64_t kMemberWords = 4;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Size of a table of 64-bit words in the workspace.
constexpr std::int64_t table_bytes(std::int64_t words) { return round_up(words * 8, 16); }

// Plans the shared memory of a block, given tile_bytes. Lowers `warps` until the tiles fit, then
// moves the histograms to device memory, and finally the tiles to the workspace.
Error plan_shared(PassArguments &a, std::int64_t real_bytes, const Place &place, int &warps);

struct GridSize {
  std::int64_t blocks = 1; // per row
  std::int64_t rows = 1;   // each for one group at a time
};

// Where blocks count or use the workspace, the grid stays resident and loops over its tiles.
// Otherwise each warp takes one tile.
Error plan_grid(const PassArguments &a, const Place &place, int resident, int warps, int width,
                GridSize *grid);

// Carries the real sums of every row of statistics, so that their low words are below 2^40.
Error carry_sums(const CountingArguments &counting, std::int64_t groups, const Place &place);

// Writes words of the host to device memory through the parameters of launches, because a CUDA
// graph could not capture a copy from the host's memory.
Error write_words(std::uint64_t *to, const std::uint64_t *from, std::int64_t count,
                  const Place &place);

} // namespace fastcal::cuda
