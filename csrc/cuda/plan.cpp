// How a pass divides the shared memory of a block, the workspace and the grid.
#include <algorithm>

#include "core/expects.h"
#include "cuda/device.h"
#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

std::int64_t histogram_bytes(const PassArguments &a) {
  return (a.counting.moment_bins - a.counting.top_label_bins) * 4;
}

// Lays out everything but the tiles.
void lay_out(PassArguments &a, std::int64_t real_bytes, bool bins) {
  SharedPlan &shared = a.shared;
  std::int64_t at = 0;
  const auto take = [&at](std::int64_t bytes) {
    const std::int64_t begin = at;
    at = round_up(at + bytes, 16);
    return static_cast<std::int32_t>(begin);
  };
  if (a.counting.wanted) {
    shared.thresholds =
        take(a.thresholds_in_shared ? (std::int64_t{a.counting.n_cells} - 1) * real_bytes : 0);
    shared.scores = take(kScoreWords * 4);
    shared.classes = take(3 * std::int64_t{a.classes} * 4);
    a.bins_in_shared = bins && a.counting.rows * histogram_bytes(a) <= kSharedBinBytes;
    shared.bins = take(a.bins_in_shared ? histogram_bytes(a) : 0);
    shared.row_bytes = static_cast<std::int32_t>(at) - shared.scores;
    at = shared.scores + std::int64_t{a.counting.rows} * shared.row_bytes;
    shared.cleared_words = a.counting.rows * shared.row_bytes / 4;
  }
  shared.tiles = static_cast<std::int32_t>(at);
}

} // namespace

Error plan_shared(PassArguments &a, std::int64_t real_bytes, const Place &place, int &warps) {
  std::int64_t limit = 0;
  if (const Error error = shared_limit(place.device, &limit)) {
    return error;
  }
  a.thresholds_in_shared =
      (std::int64_t{a.counting.n_cells} - 1) * real_bytes <= kSharedThresholdBytes;
  for (const bool bins : {true, false}) {
    lay_out(a, real_bytes, bins);
    warps = kMaxWarps;
    while (warps > 1 && a.shared.tiles + warps * a.tile_bytes > limit) {
      warps /= 2;
    }
    if (a.shared.tiles + a.tile_bytes <= limit) {
      a.shared.bytes = static_cast<std::int32_t>(a.shared.tiles + warps * a.tile_bytes);
      return {};
    }
  }
  expects(a.shared.tiles <= limit,
          "classes must be few enough for the shared memory of this device");
  warps = kMaxWarps;
  expects(place.workspace_bytes >= warps * a.tile_bytes,
          "workspace must hold what workspace_bytes() gives");
  a.shared.bytes = a.shared.tiles;
  a.tile_workspace = static_cast<unsigned char *>(place.workspace);
  return {};
}

Error plan_grid(const PassArguments &a, const Place &place, int resident, int warps, int width,
                GridSize *grid) {
  std::int64_t multiprocessors = 0;
  if (const Error error = processors(place.device, &multiprocessors)) {
    return error;
  }
  const std::int64_t tiles = a.tiles;
  const std::int64_t groups = a.groups;
  const std::int64_t blocks = (tiles + warps - 1) / warps;
  std::int64_t most = std::max(resident, 1) * multiprocessors;
  if (a.tile_workspace != nullptr) {
    most = std::min(most, place.workspace_bytes / (warps * a.tile_bytes));
    grid->rows = std::min({groups, kMaxGridRows, most});
    grid->blocks = std::clamp<std::int64_t>(most / grid->rows, 1, std::min(blocks, kMaxGrid));
    return {};
  }
  grid->rows = std::min(groups, kMaxGridRows);
  const std::int64_t values_per_tile = width * (a.reading.multilabel ? std::int64_t{a.classes} : 1);
  const std::int64_t tiles_per_block = std::max<std::int64_t>(kValuesPerBlock / values_per_tile, 1);
  const std::int64_t least = (tiles + tiles_per_block - 1) / tiles_per_block;
  most = std::max((most + grid->rows - 1) / grid->rows, least);
  const bool stays = a.counting.wanted || a.persistent;
  grid->blocks = std::min({stays ? most : blocks, blocks, kMaxGrid});
  return {};
}

Error workspace_bytes(int device, const Size &size, std::int64_t *bytes) {
  const std::int64_t real = size.dtype == Dtype::kFloat64 ? 8 : 4;
  const std::int64_t n_thresholds = std::max<std::int64_t>(size.n_cells - 1, 0);
  *bytes = size.n_members > kInlineMembers ? table_bytes(size.n_members * kMemberWords) : 0;
  *bytes += n_thresholds > kInlineThresholds ? table_bytes(n_thresholds) : 0;
  const std::int64_t tile = round_up((size.planes * real + 5) * kWarpLanes, 16);
  const std::int64_t row = round_up(kScoreWords * 4, 16) + round_up(3 * size.classes * 4, 16);
  const std::int64_t counts = size.rows > 0 ? kSharedThresholdBytes + size.rows * row : 0;
  std::int64_t limit = 0;
  std::int64_t multiprocessors = 0;
  if (const Error error = shared_limit(device, &limit)) {
    return error;
  }
  if (const Error error = processors(device, &multiprocessors)) {
    return error;
  }
  if (tile + counts > limit) {
    *bytes += multiprocessors * kWorkspaceBlocksPerProcessor * kMaxWarps * tile;
  }
  return {};
}

} // namespace fastcal::cuda
