// The order in which a pass visits voxels: axes are sorted and merged, so that rows are long.
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "core/expects.h"
#include "core/problem.h"

namespace fastcal {

struct Walk {
  int axes = 0;
  std::int64_t extents[kMaxAxes] = {};
  std::int64_t voxels = 1;

  std::int64_t row() const { return axes == 0 ? 1 : extents[axes - 1]; }
};

struct Coordinates {
  std::int64_t at[kMaxAxes] = {};
};

inline Coordinates coordinates_of(const Walk &walk, std::int64_t voxel) {
  Coordinates where;
  for (int axis = walk.axes - 1; axis >= 0; --axis) {
    where.at[axis] = voxel % walk.extents[axis];
    voxel /= walk.extents[axis];
  }
  return where;
}

inline std::int64_t offset_of(const Walk &walk, const View &view, const Coordinates &where) {
  std::int64_t offset = 0;
  for (int axis = 0; axis < walk.axes; ++axis) {
    offset += where.at[axis] * view.strides[axis];
  }
  return offset;
}

// Sorts the voxel axes by the stride of the first operand, so that a transposed view is read the
// way it lies in memory; no result depends on the order of the voxels. Then merges neighbouring
// axes that every operand walks as one. The first `pinned` axes keep their place and are never
// merged.
inline Walk plan_walk(const std::vector<std::int64_t> &shape, const std::vector<View *> &operands,
                      int pinned) {
  expects(static_cast<int>(shape.size()) <= kMaxAxes, "tensors must have at most 12 voxel axes");
  const int axes = static_cast<int>(shape.size());
  int order[kMaxAxes];
  std::iota(order, order + axes, 0);
  if (!operands.empty()) {
    const std::int64_t *strides = operands.front()->strides;
    for (int i = pinned + 1; i < axes;
         ++i) { // an insertion sort is stable, and there are at most 12 axes
      for (int j = i; j > pinned && strides[order[j]] > strides[order[j - 1]]; --j) {
        std::swap(order[j], order[j - 1]);
      }
    }
  }

  Walk walk;
  std::vector<View> merged(operands.size());
  for (std::size_t k = 0; k < operands.size(); ++k) {
    merged[k] = *operands[k];
  }
  for (int i = 0; i < axes; ++i) {
    const int axis = order[i];
    const std::int64_t extent = shape[axis];
    walk.voxels *= extent;
    if (extent == 1 && i >= pinned) {
      continue;
    }
    bool joins = walk.axes > pinned;
    for (std::size_t k = 0; joins && k < operands.size(); ++k) {
      joins = merged[k].strides[walk.axes - 1] == operands[k]->strides[axis] * extent;
    }
    const int place = joins ? walk.axes - 1 : walk.axes++;
    walk.extents[place] = joins ? walk.extents[place] * extent : extent;
    for (std::size_t k = 0; k < operands.size(); ++k) {
      merged[k].strides[place] = operands[k]->strides[axis];
    }
  }
  for (std::size_t k = 0; k < operands.size(); ++k) {
    *operands[k] = merged[k];
  }
  return walk;
}

} // namespace fastcal
