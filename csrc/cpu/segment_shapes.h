// What of segments depends on neighbouring voxels, and on several members: interior, patches,
// components and overlaps. Everything is contiguous. Labels are bytes; a label that is no class
// belongs to nothing.
#pragma once

#include <cstdint>
#include <vector>

namespace fastcal::cpu {

// The extents of a volume. Images and lines have planes, or planes and lines, of one.
struct Extents {
  std::int64_t planes;
  std::int64_t lines;
  std::int64_t length;

  std::int64_t voxels() const { return planes * lines * length; }
};

// Writes 1 where the squared distance to the nearest voxel of another label is above `limit`, else
// 0. Neighbours are one step apart. `reach` is the largest whole distance that is not above the
// limit, which is 100 at most.
void interior(const std::uint8_t *labels, const Extents &extents, int limit, std::int64_t reach,
              std::uint8_t *inside, int n_threads);

// For each class, the largest sum over a patch among those around its voxels; -infinity where it
// has none. A patch begins size / 2 voxels before its voxel and is moved into the volume. Values
// that are not numbers count as 0. With one label per class, `labels` is [classes][voxels] of 0 and
// 1. `sums` is of the size of `values`.
template <typename Real> struct PatchProblem {
  const Real *values;
  const std::uint8_t *labels;
  Extents extents;
  std::int64_t classes;
  std::int64_t size;
  bool multilabel;
  Real *sums;
  double *largest; // [classes]
};

void patch_maxima(const PatchProblem<float> &problem, int n_threads);
void patch_maxima(const PatchProblem<double> &problem, int n_threads);

// Counts, for each class, the components of at least `smallest` voxels. Voxels that share a face,
// an edge or a corner are connected.
void count_components(const std::uint8_t *labels, const Extents &extents, std::int64_t classes,
                      std::int64_t smallest, std::int64_t *counts);

// Adds to [classes][members][members] how many voxels both members give to the class.
void overlaps(const std::vector<const std::uint8_t *> &labels, std::int64_t voxels,
              std::int64_t classes, std::int64_t *found, int n_threads);

} // namespace fastcal::cpu
