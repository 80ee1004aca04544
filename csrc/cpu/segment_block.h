// What the instruction-set files offer the pass over segments. This is plain data, since the files
// of every instruction set include it.
#pragma once

#include <cstdint>

#include "core/segment_problem.h"

namespace fastcal::cpu {

// One block of voxels. Pointers to absent operands are null.
template <typename Real> struct SegmentBlock {
  const Real *mean; // [classes][mean_pitch]
  std::int64_t mean_pitch;
  const Real *votes; // [classes][votes_pitch]
  std::int64_t votes_pitch;
  const Real *entropy;          // [voxels]
  const Real *information;      // [voxels]
  const std::int32_t *label;    // [classes when multilabel, else 1][tile_pitch]
  const std::int32_t *interior; // the same, 0 or 1
  const std::int32_t *keep;     // [voxels]: -1 counts, 0 does not
  std::int64_t tile_pitch;
  std::int64_t voxels; // padded to kLaneMultiple; the padding has keep == 0
  std::int64_t classes;
  bool multilabel;
  bool binary;
  bool clip;
  std::int64_t *rows; // added to: [classes][segment_word::kWords]
};

struct SegmentStage {
  void (*f32)(const SegmentBlock<float> &block);
  void (*f64)(const SegmentBlock<double> &block);
};

extern const SegmentStage kSegmentsBaseline;
extern const SegmentStage kSegmentsAvx2;
extern const SegmentStage kSegmentsAvx512;

} // namespace fastcal::cpu
