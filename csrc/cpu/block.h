// Moves one block of voxels between the operands' memory and tiles in the cache.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/walk.h"
#include "cpu/kernels.h"

namespace fastcal::cpu {

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
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

template <typename To, typename From>
void scatter(const Run &run, const From *tile, std::int64_t pitch) {
  To *to = static_cast<To *>(const_cast<void *>(run.data));
  for (std::int64_t c = 0; c < run.classes; ++c) {
    const From *from = tile + c * pitch;
    To *plane = to + c * run.class_stride;
    if (run.voxel_stride == 1) {
      for (std::int64_t v = 0; v < run.voxels; ++v) {
        plane[v] = static_cast<To>(from[v]);
      }
    } else {
      for (std::int64_t v = 0; v < run.voxels; ++v) {
        plane[v * run.voxel_stride] = static_cast<To>(from[v]);
      }
    }
  }
}

// Writes a tile [classes][pitch] of labels to a view of any integer type.
inline void scatter_labels(const Run &run, const std::int32_t *tile, std::int64_t pitch) {
  switch (run.dtype) {
  case Dtype::kInt64:
  case Dtype::kUInt64:
    return scatter<std::int64_t>(run, tile, pitch);
  case Dtype::kInt32:
  case Dtype::kUInt32:
    return scatter<std::int32_t>(run, tile, pitch);
  case Dtype::kInt16:
  case Dtype::kUInt16:
    return scatter<std::int16_t>(run, tile, pitch);
  default:
    return scatter<std::int8_t>(run, tile, pitch);
  }
}

} // namespace fastcal::cpu
