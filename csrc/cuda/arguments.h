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

// Whether the voxels [first, first + count) lie in one row of the grid.
FASTCAL_HOST_DEVICE FASTCAL_NOINLINE inline bool share_a_row(const Grid &grid, std::int64_t first,
                                                             int count) {
  const int last = grid.axes - 1;
  if (grid.narrow) {
    const Divider &divider = grid.dividers[last];
    return divider.divide(static_cast<std::uint32_t>(first)) ==
           divider.divide(static_cast<std::uint32_t>(first + count - 1));
  }
  return first / grid.extents[last] == (first + count - 1) / grid.extents[last];
}

FASTCAL_HOST_DEVICE inline bool lie_in_one_row(const Grid &grid, std::int64_t first, int count) {
  return grid.axes <= 1 || share_a_row(grid, first, count);
}

struct MemberEntry {
  const void *data;
  double weight;
  double inverse_temperature;
  float weight_single; // rounded here, once for all threads
  float inverse_temperature_single;
};

struct CountingArguments {
  bool wanted = false;
  bool has_ignore_index = false;
  bool left_closed = false;
  bool checks_sum = false; // count voxels whose probabilities do not sum to 1
  bool top_label = false;
  bool classwise = false;
  bool even_bins = false; // see Thresholds
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

// Byte offsets of what a warp of a plain pass keeps in its part of the shared memory.
struct PlainPlan {
  std::int32_t offsets = 0; // [width] 64-bit offsets of the voxels in a member
  // [planes][width] values on their way to maps that do not take 16 bytes at a time
  std::int32_t staged[kMapCount] = {};
  bool any_staged = false;
  std::int32_t state = 0;   // [planes][width] of a streamed state that does not
  std::int32_t sum = 0;     // [classes][width] probabilities, where they are counted
  std::int32_t target = 0;  // [width]
  std::int32_t regions = 0; // [width] bytes
  std::int32_t votes = 0;   // [classes][width], for more members than a packed counter holds
  std::int32_t ring = 0;    // [stages] of the members' numbers
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
  // Of plain passes:
  bool persistent = false;     // the grid stays resident and loops over its tiles
  bool copies_ahead = false;   // members go through the ring in shared memory
  bool runs = false;           // the voxels of one row of the grid are neighbours in a member,
  bool interleaved = false;    // with all classes of one before those of the next
  bool wide_state = false;     // the state is read and written 16 bytes at a time
  std::uint32_t wide_maps = 0; // maps that are, as bits
  std::uint32_t maps_like_member = 0; // of these, maps that lie like a member; others lie in order
  PlainPlan plain;

  std::int32_t n_members = 0; // read by this launch
  double scale = 1.0;         // 1 / sum of weights
  double inverse_members = 1.0;

  View member;                   // dtype and strides of every member; data is unused
  std::uint32_t class_bytes = 0; // from class to class, where 32 bits hold it
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
