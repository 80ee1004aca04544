// What a launch hands to a kernel: plain data, passed by value in the parameter space.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cuda/policy.h"

#if defined(__CUDACC__) || defined(FASTCAL_CUDA_SHIM)
#define FASTCAL_HOST_DEVICE __host__ __device__
#else
#define FASTCAL_HOST_DEVICE
#endif
#if defined(__CUDACC__)
#define FASTCAL_NOINLINE __noinline__
#else
#define FASTCAL_NOINLINE
#endif

namespace fastcal::cuda {

// Computes n / divisor by a multiplication and a shift, for 0 <= n < 2^31 (Granlund and Montgomery,
// 1994).
struct Divider {
  std::uint32_t multiplier = 0; // 0 divides by 1
  std::uint32_t shift = 0;

  Divider() = default;
  explicit Divider(std::int64_t divisor) {
    if (divisor <= 1 || divisor >= (std::int64_t{1} << 31)) {
      return;
    }
    std::uint32_t log = 0;
    while ((std::int64_t{1} << log) < divisor) {
      ++log;
    }
    const std::uint64_t power = std::uint64_t{1} << (31 + log);
    multiplier = static_cast<std::uint32_t>((power + static_cast<std::uint64_t>(divisor) - 1) /
                                            static_cast<std::uint64_t>(divisor));
    shift = log - 1;
  }

  FASTCAL_HOST_DEVICE std::uint32_t divide(std::uint32_t n) const {
    return multiplier == 0
               ? n
               : static_cast<std::uint32_t>((static_cast<std::uint64_t>(n) * multiplier) >> 32) >>
                     shift;
  }
};

// The voxel axes of a pass, outermost first.
struct Grid {
  std::int32_t axes = 0;
  bool narrow = true; // every voxel index is below 2^31
  std::int64_t extents[kMaxAxes] = {};
  Divider dividers[kMaxAxes];
};

// Offset of a voxel, in elements, when there is more than one axis. It is kept out of line on the
// GPU, because inlined copies would make up a fifth of every kernel.
FASTCAL_HOST_DEVICE FASTCAL_NOINLINE inline std::int64_t
offset_over_axes(const Grid &grid, const std::int64_t *strides, std::int64_t voxel) {
  std::int64_t offset = 0;
  for (int axis = grid.axes - 1; axis > 0; --axis) {
    const std::int64_t outer = grid.narrow ? static_cast<std::int64_t>(grid.dividers[axis].divide(
                                                 static_cast<std::uint32_t>(voxel)))
                                           : voxel / grid.extents[axis];
    offset += (voxel - outer * grid.extents[axis]) * strides[axis];
    voxel = outer;
  }
  return offset + voxel * strides[0];
}

FASTCAL_HOST_DEVICE inline std::int64_t offset_of(const Grid &grid, const std::int64_t *strides,
                                                  std::int64_t voxel) {
  return grid.axes <= 1 ? voxel * strides[0] : offset_over_axes(grid, strides, voxel);
}

struct MemberEntry {
  const void *data;
  double weight;
  double inverse_temperature;
};

struct CountingArguments {
  bool wanted = false;
  bool has_ignore_index = false;
  bool left_closed = false;
  bool checks_sum = false; // count voxels whose probabilities do not sum to 1
  bool top_label = false;
  bool classwise = false;
  std::int32_t n_cells = 0;
  std::int64_t ignore_index = 0;
  double eps = 0.0;
  View target;
  View mask;
  std::int64_t *statistics = nullptr;
  View regions;           // data is null without regions
  std::int32_t rows = 1;  // of a group: one for all voxels, then one per region
  std::int64_t words = 0; // of a row; its parts begin at:
  std::int64_t predicted = 0;
  std::int64_t top_label_bins = 0;
  std::int64_t classwise_bins = 0;
  std::int64_t moment_bins = 0;
  std::int64_t fine_top_label = 0;
  std::int64_t fine_classwise = 0;
  std::int64_t entropy_cells = 0;
  bool moments = false;
  std::int32_t fine_bins = 0;
  std::int32_t fine_shift = 0;
  std::int32_t entropy_bins = 0;
  double entropy_scale = 0.0;
};

// Number of 32-bit words of a block's scores, see counts.cuh.
constexpr int kScoreWords = 17;

// Byte offsets of what a block keeps in shared memory.
struct SharedPlan {
  std::int32_t thresholds = 0; // [n_cells - 1] of the accumulation type
  std::int32_t row_bytes = 0;  // of scores, classes and bins, for each row of a group
  std::int32_t scores = 0;     // [kScoreWords]
  std::int32_t classes = 0;    // [3][classes] 32-bit counts
  std::int32_t bins = 0;       // [histograms][n_cells][4] 32-bit words
  std::int32_t tiles = 0;      // one per warp
  std::int32_t bytes = 0;
  std::int32_t cleared_words = 0; // 32-bit words from `scores` that start at zero
};

struct PassArguments {
  Grid grid;
  std::int64_t group_voxels = 0; // voxels of each group
  std::uint32_t groups = 1;
  std::uint32_t tiles = 0; // of a group

  std::int32_t classes = 0;
  std::int32_t split_shift = 0; // log2 of the lanes that share the classes of a voxel
  Reading reading;
  bool vector = false; // a thread reads its voxels of a member in one access
  bool keeps_entropy = false;
  bool keeps_square = false;
  bool keeps_votes = false;
  bool loads_state = false;
  bool stores_state = false;
  bool finishes = false;
  bool normalise = false;
  bool checks_range = false; // members are probabilities
  bool bins_in_shared = false;
  bool thresholds_in_shared = false;
  bool accepts_squares = false; // each class may have its own plane of squares

  std::int32_t n_members = 0; // read by this launch
  double scale = 1.0;         // 1 / sum of weights
  double inverse_members = 1.0;

  View member; // dtype and strides of every member; data is unused
  View state;
  std::int64_t entropy_plane = 0; // in the state, as in StateLayout
  std::int64_t square_plane = 0;
  std::int64_t votes_plane = 0;
  Maps maps;
  CountingArguments counting;
  SharedPlan shared;
  std::int64_t tile_bytes = 0;
  unsigned char *tile_workspace = nullptr; // [warps of the grid][tile_bytes]; null: shared memory

  const MemberEntry *member_table = nullptr; // null: in `members`
  const void *threshold_table = nullptr;     // of the accumulation type; null: in `thresholds`
  MemberEntry members[kInlineMembers];
  double thresholds[kInlineThresholds];
};

static_assert(sizeof(PassArguments) <= 4096, "beyond the parameter space of older drivers");

} // namespace fastcal::cuda
