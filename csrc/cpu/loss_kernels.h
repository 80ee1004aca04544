// What the instruction-set files offer the losses: sums over one block of voxels that stays in the
// cache, and the gradient of a loss that is a function of such sums. This is plain data, see
// kernels.h.
#pragma once

#include <cstdint>

#include "core/loss.h"
#include "cpu/kernels.h"

namespace fastcal::cpu {

// The targets of a block. Labels become -1 where a voxel does not count.
struct LabelBlock {
  Run target;
  bool has_ignore_index;
  std::int64_t ignore_index;
  std::int64_t num_classes;
  std::int32_t *labels;
  std::int64_t *wrong; // added to: how many targets are not a class, and their sum
};

template <typename Real> struct LogitBlock {
  const Real *logits; // [classes][pitch]: a tile, or where they lie in memory
  std::int64_t pitch;
  std::int64_t tile_pitch; // of the tiles
  std::int64_t voxels;     // padded to kLaneMultiple
  std::int64_t classes;
  const std::int32_t *target; // -1 where a voxel does not count, as in the padding
  std::int32_t first_label;   // the label of class 0: 1 where it is the only class
  Activation head;
  Real *lanes; // scratch, [12][classes][kLaneMultiple]
};

template <typename Real> struct ClassSums {
  LogitBlock<Real> block;
  SumsWanted wanted;
  double *sums; // [sum::kRows][classes], added to
};

template <typename Real> struct ClassGradient {
  LogitBlock<Real> block;
  SumsWanted wanted;
  const Real *factors; // [sum::kRows][classes]: d loss / d sum
  Real *gradient;      // [classes][tile_pitch]
};

template <typename Real> struct BinBlock {
  LogitBlock<Real> block;
  Bins bins;
  const Real *thresholds; // [bins.count - 1]; the bin of p is the number of thresholds below p
  Real *probabilities;    // scratch, [classes][tile_pitch]
  Real *off;              // scratch, [voxels], and so are the following
  Real *share;
  Real *growth;
  std::int32_t *cell;
};

template <typename Real> struct LossKernels {
  void (*class_sums)(const ClassSums<Real> &block);
  void (*class_gradient)(const ClassGradient<Real> &block);
  // sums: [classes][bins.words()], added to
  void (*bin_gaps)(const BinBlock<Real> &block, double *sums);
  // factors: d loss / d sum, in the order of the sums; gradient: [classes][tile_pitch]
  void (*bin_gradient)(const BinBlock<Real> &block, const Real *factors, Real *gradient);
};

struct LossStage {
  LossKernels<float> f32;
  LossKernels<double> f64;
  void (*load_labels)(const LabelBlock &block);
  // Stores a tile of floats in half precision, rounded to nearest even.
  void (*store_halves)(const Run &run, const float *tile, std::int64_t pitch);
};

extern const LossStage kLossBaseline;
extern const LossStage kLossAvx2;
extern const LossStage kLossAvx512;

} // namespace fastcal::cpu
