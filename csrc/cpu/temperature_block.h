// What the instruction-set files offer the pass of temperature scaling. This is plain data, since
// the files of every instruction set include it.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "core/temperature.h"

namespace fastcal::cpu {

// One block of voxels, read once.
template <typename Real> struct TemperatureBlock {
  const void *values; // [classes][pitch]; half precision only for logits of a plain softmax
  Dtype dtype;
  std::int64_t pitch;
  std::int64_t voxels; // padded to kLaneMultiple; the padding has keep == 0
  std::int64_t classes;
  bool bernoulli;  // every class is a Bernoulli variable
  bool multilabel; // and has its own target
  bool per_class;
  bool prefetch; // the next block follows directly in memory
  Real low;      // stands for the logit of p = 0, relative to the largest of the voxel
  const Real *inverse_temperatures; // [classes] when per class, else [1]
  const std::int32_t *target;       // [classes when multilabel, else 1][tile_pitch]
  std::int32_t *keep;               // -1 counts, 0 does not; invalid voxels are taken out
  std::int64_t tile_pitch;
  // Scratch tiles. The last four are for temperatures per class.
  Real *total;    // [voxels]
  Real *rest;     // [voxels]
  Real *others;   // [voxels]
  Real *logits;   // [classes][tile_pitch]
  Real *products; // [classes][tile_pitch]
  Real *scaled;   // [classes][tile_pitch]
  std::int64_t *n_voxels;
  std::int64_t *n_invalid;
  double *sums; // TemperatureLayout
};

template <typename Real> struct TemperatureKernels {
  // Turns probabilities [classes][pitch] into finite logits in place; what is not a probability
  // becomes NaN.
  void (*to_logits)(Real *tile, std::int64_t pitch, std::int64_t voxels, std::int64_t classes,
                    bool bernoulli, const ProbabilityFloor &floor);
  void (*add)(const TemperatureBlock<Real> &block);
};

struct TemperatureStage {
  TemperatureKernels<float> f32;
  TemperatureKernels<double> f64;
};

extern const TemperatureStage kTemperatureBaseline;
extern const TemperatureStage kTemperatureAvx2;
extern const TemperatureStage kTemperatureAvx512;

} // namespace fastcal::cpu
