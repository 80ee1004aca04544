// What the instruction-set files offer the passes: work on one block of voxels that stays in the
// cache. This is plain data. Nothing here may emit code, since the files of every instruction set
// include it.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fastcal::cpu {

// Lanes of the widest vector, in elements of the narrowest real type; blocks are padded to it.
constexpr std::int64_t kLaneMultiple = 16;

constexpr std::int64_t kMaxBlockVoxels = 1024;

// Number of infinities behind the thresholds of a CountBlock.
constexpr std::int64_t kThresholdPadding = 2 * kLaneMultiple;

// Voxels of one operand at equal distances in memory.
struct Run {
  const void *data;
  Dtype dtype;
  std::int64_t voxel_stride;
  std::int64_t class_stride;
  std::int64_t voxels;
  std::int64_t classes;
};

// What a member's planes hold when they reach accumulate.
enum class Holds : std::int32_t { kLogits, kProbabilities };

template <typename Real> struct Accumulate {
  const void *member; // [classes][member_pitch]; half precision only for a plain softmax of logits
  Dtype dtype;
  std::int64_t member_pitch;
  std::int64_t voxels; // padded to kLaneMultiple
  std::int64_t classes;
  Holds holds;
  Activation activation;
  bool multilabel;
  bool logit_space;
  bool prefetch; // the next block follows directly in memory
  Real weight;
  Real inverse_temperature;
  Real *sum; // [classes][pitch]
  std::int64_t pitch;
  Real *entropy;      // null where not wanted
  Real *square;       // [classes][pitch], null where not wanted
  Real *votes;        // [classes][pitch], null where not wanted
  Real *lane_scratch; // [classes][kLaneMultiple]
  Real *totals;       // [voxels], scratch
};

template <typename Real> struct FinishBlock {
  const Real *sum; // [classes][pitch]
  std::int64_t pitch;
  std::int64_t voxels; // padded to kLaneMultiple
  std::int64_t classes;
  Activation activation;
  bool multilabel;
  bool logit_space;
  bool normalise;
  bool check_range; // the members were probabilities
  Real scale;       // 1 / sum of weights
  Real inverse_members;
  const Real *entropy_sum; // null where absent, as are the next two; the pitch is that of `sum`
  const Real *square_sum;
  const Real *votes;
  Real *mean; // [classes][mean_pitch]; null where nobody reads it
  std::int64_t mean_pitch;
  bool sum_serves;    // the mean may stay in `sum` where that holds the same numbers
  bool prefetch;      // the next block follows directly in memory
  Real *lane_scratch; // [classes][kLaneMultiple]
  // Each of the following is null where it is not wanted, and [voxels] unless said otherwise.
  Real *confidence; // multilabel: [classes][block_pitch]
  Real *entropy;
  Real *expected_entropy;
  Real *mutual_information;
  Real *variance;
  Real *disagreement;
  std::int32_t *label; // multilabel: [classes][block_pitch]
  std::int64_t block_pitch;
  std::int32_t *validity; // 0: valid, 1: invalid, 3: a probability is out of range
  Real *class_sum;        // sum of the probabilities, for the check of unnormalised input
};

// The targets of a block, and which of its voxels count, as 32-bit lanes.
struct TargetBlock {
  Run target;
  bool prefetch; // the next block follows directly in memory
  Run mask;      // data is null without a mask
  bool multilabel;
  bool has_ignore_index;
  std::int64_t ignore_index;
  std::int64_t num_classes;
  std::int32_t *classes; // [target.classes][pitch]
  std::int64_t pitch;
  std::int32_t *keep; // -1 counts, 0 does not
  std::int64_t *row;  // bad targets are counted here
};

template <typename Real> struct CountBlock {
  const Real *mean; // [classes][mean_pitch]
  std::int64_t mean_pitch;
  std::int64_t voxels; // padded; the padding has keep == 0
  bool multilabel;
  const std::int32_t *target; // [classes or 1][pitch]
  const std::int32_t *label;  // [classes or 1][pitch]
  const Real *confidence;     // [classes or 1][pitch]
  std::int64_t pitch;
  std::int32_t *keep; // validity is folded in
  const std::int32_t *validity;
  const Real *class_sum;  // null: do not count unnormalised voxels
  const Real *thresholds; // the cell of p is the number of thresholds below p; padded
  Real eps;
  Real entropy_scale; // entropy bins per nat
  StatisticsLayout layout;
  std::int64_t *row; // of this thread; sums of bins go to lo without a carry
};

template <typename Real> struct MapsKernels {
  void (*load)(const Run &run, Real *tile, std::int64_t pitch);
  // With past_caches the caches are bypassed, for memory that is not read again soon; `fence` must
  // follow.
  void (*store)(const Run &run, const Real *tile, std::int64_t pitch, bool past_caches);
  // Turns probabilities into logits in place: ln p, or ln p - ln (1 - p) for the sigmoid.
  void (*to_logits)(Real *tile, std::int64_t pitch, std::int64_t voxels, std::int64_t classes,
                    Activation activation);
  void (*accumulate)(const Accumulate<Real> &block);
  // False when the mean planes were left as they are, because sum_serves.
  bool (*finish)(const FinishBlock<Real> &block);
};

struct MapsStage {
  MapsKernels<float> f32;
  MapsKernels<double> f64;
  void (*store_labels)(const Run &run, const std::int32_t *tile, std::int64_t pitch,
                       bool past_caches);
  void (*fence)();
  std::uint64_t (*read)(const std::uint64_t *words, std::int64_t n_words);
};

struct CountStage {
  void (*load_target)(const TargetBlock &block);
  void (*count_f32)(const CountBlock<float> &block);
  void (*count_f64)(const CountBlock<double> &block);
};

// One of each per instruction set, from its own file.
extern const MapsStage kMapsBaseline;
extern const CountStage kCountBaseline;
extern const MapsStage kMapsAvx2;
extern const CountStage kCountAvx2;
extern const MapsStage kMapsAvx512;
extern const CountStage kCountAvx512;

} // namespace fastcal::cpu
