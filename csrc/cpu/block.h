// A block of voxels, and where it lies in the memory of the operands.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/walk.h"
#include "cpu/kernels.h"

namespace fastcal::cpu {

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// The voxels of a block: all planes of a member take about 16 KB of floats, so that the running
// sums stay in the first-level cache.
inline std::int64_t block_voxels_for(std::int64_t classes) {
  constexpr std::int64_t kElements = 4096;
  return std::clamp(kElements / std::max<std::int64_t>(classes, 1) / 64 * 64, std::int64_t{64},
                    kMaxBlockVoxels);
}

// A part of a block that lies in one row of the walk.
struct Segment {
  std::int64_t first = 0;
  std::int64_t voxels = 0;
  Coordinates where;
};

struct Block {
  std::int64_t voxels = 0;
  std::int64_t padded = 0;
  std::vector<Segment> segments;

  void place(const Walk &walk, std::int64_t first_voxel, std::int64_t n) {
    voxels = n;
    padded = round_up(n, kLaneMultiple);
    segments.clear();
    for (std::int64_t done = 0; done < n;) {
      Segment segment;
      segment.first = done;
      segment.where = coordinates_of(walk, first_voxel + done);
      const std::int64_t column = walk.axes == 0 ? 0 : segment.where.at[walk.axes - 1];
      segment.voxels = std::min(n - done, walk.row() - column);
      done += segment.voxels;
      segments.push_back(segment);
    }
  }

  // True when the kernels may work on the operand's own memory.
  bool is_direct(const Walk &walk, const View &view, Dtype real) const {
    return segments.size() == 1 && voxels == padded && view.dtype == real && walk.axes > 0 &&
           view.strides[walk.axes - 1] == 1;
  }
};

inline Run run_of(const Walk &walk, const View &view, const Segment &segment,
                  std::int64_t classes) {
  Run run;
  run.data = static_cast<const char *>(view.data) +
             offset_of(walk, view, segment.where) * size_of(view.dtype);
  run.dtype = view.dtype;
  run.voxel_stride = walk.axes == 0 ? 1 : view.strides[walk.axes - 1];
  run.class_stride = view.class_stride;
  run.voxels = segment.voxels;
  run.classes = classes;
  return run;
}

} // namespace fastcal::cpu
