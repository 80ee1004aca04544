// What a pass reads, what it writes and what it counts: plain views with 64-bit strides. Mirrors
// fastcal/core/problem.py.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastcal {

// The most voxel axes of an operand.
constexpr int kMaxAxes = 12;

// One operand over the voxel axes of a Walk; strides count elements.
struct View {
  void *data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  std::int64_t class_stride = 0;
  std::int64_t strides[kMaxAxes] = {};
};

enum class Activation : std::int32_t { kSoftmax = 0, kSigmoid = 1 };

struct Reading {
  bool from_logits = true;
  Activation activation = Activation::kSoftmax;
  bool multilabel = false;
  bool logit_space = false;
};

// Bit positions equal fastcal.core.problem.MAPS.
enum class Map : std::int32_t {
  kMean = 0,
  kLabel = 1,
  kConfidence = 2,
  kEntropy = 3,
  kExpectedEntropy = 4,
  kMutualInformation = 5,
  kVariance = 6,
  kDisagreement = 7,
};
constexpr int kMapCount = 8;

struct Maps {
  View views[kMapCount]; // data is null where a map is not asked for

  bool wants(Map map) const { return views[static_cast<int>(map)].data != nullptr; }
  const View &operator[](Map map) const { return views[static_cast<int>(map)]; }
};

// A row of statistics: a header, three words per class, bins of {count, hits, sum hi, sum lo}, and
// extras. A real sum is hi + lo * 2^-40.
namespace word {
constexpr int kVoxels = 0;
constexpr int kCorrect = 1;
constexpr int kBrier = 2;
constexpr int kNll = 4;
constexpr int kClipped = 6;
constexpr int kInvalid = 7;
constexpr int kBadTarget = 8;
constexpr int kBadTargetSum = 9;
constexpr int kUnnormalised = 10;
constexpr int kOutOfRange = 11;
constexpr int kHeader = 12;
} // namespace word

constexpr int kFractionBits = 40;
constexpr std::int64_t kFractionMask = (std::int64_t{1} << kFractionBits) - 1;
constexpr double kFractionScale = 1099511627776.0; // 2^40

constexpr int kBinWords = 4;
constexpr int kFineWords = 2; // {count, hits} of a fine cell or an entropy bin

// The powers of two that the fine cells below 1/2 cover. What is nearer to 0 shares the first cell.
constexpr int kFineOctaves = 32;

constexpr int kMaxRegions = 8; // bits of the region mask

// The sections of a row are in the order of the functions below. Fine cells count what the bins
// before them count: the confidence against correctness, and the probability of each class against
// its presence. Entropy bins count the entropy of the prediction against correctness; when
// multilabel, of each class as a Bernoulli variable.
struct StatisticsLayout {
  std::int64_t num_classes = 0;
  std::int64_t n_cells = 0;
  bool top_label = false;
  bool classwise = false;
  bool moments = false;          // second moments of the classwise bins
  std::int64_t fine_bins = 0;    // 0: none; else 2 * kFineOctaves << fine_shift()
  std::int64_t entropy_bins = 0; // 0: none

  std::int64_t predicted() const { return word::kHeader; }
  std::int64_t reference() const { return predicted() + num_classes; }
  std::int64_t true_positive() const { return reference() + num_classes; }
  std::int64_t top_label_bins() const { return true_positive() + num_classes; }
  std::int64_t classwise_bins() const {
    return top_label_bins() + (top_label ? kBinWords * n_cells : 0);
  }
  // [num_classes][n_cells]{sum p^2 hi, lo, sum p y hi, lo}; p^2 is a product of doubles.
  std::int64_t moment_bins() const {
    return classwise_bins() + (classwise ? kBinWords * n_cells * num_classes : 0);
  }
  bool has_moments() const { return moments && classwise; }
  // [fine_bins]{count, hits}
  std::int64_t fine_top_label() const {
    return moment_bins() + (has_moments() ? kBinWords * n_cells * num_classes : 0);
  }
  // [num_classes][fine_bins]{count, hits}
  std::int64_t fine_classwise() const {
    return fine_top_label() + (top_label ? kFineWords * fine_bins : 0);
  }
  // [entropy_bins]{count, hits}
  std::int64_t entropy_cells() const {
    return fine_classwise() + (classwise ? kFineWords * fine_bins * num_classes : 0);
  }
  std::int64_t words() const { return entropy_cells() + kFineWords * entropy_bins; }

  // The number m of mantissa bits of a fine cell. Let d be p below 1/2 and 1 - p (which is exact)
  // from 1/2 on, M the mantissa bits of its type and E the biased exponent of 1/4 (float: 23 and
  // 125, double: 52 and 1021). Then index = clamp((bits(d) >> (M - m)) - ((E - 31) << m), 0,
  // fine_bins / 2 - 1), where bits(d) is negative for a negative d. The cell is the index below
  // 1/2, and fine_bins - 1 - index from 1/2 on.
  int fine_shift() const {
    int shift = 0;
    while ((std::int64_t{2 * kFineOctaves} << shift) < fine_bins) {
      ++shift;
    }
    return shift;
  }
};

struct Counting {
  bool wanted = false;
  View target;
  View mask; // data is null without a mask
  bool has_ignore_index = false;
  std::int64_t ignore_index = 0;
  const void *thresholds = nullptr; // n_cells - 1 inner edges, of the accumulation type
  bool left_closed = false;
  double eps = 0.0;
  StatisticsLayout layout;
  std::int64_t *statistics = nullptr; // added to: [groups][rows()][layout.words()]
  std::int64_t groups = 1;            // 1, or the extent of the outermost voxel axis
  View regions;      // of bytes: bit r is set where a voxel lies in region r; data is null without
  int n_regions = 0; // at most kMaxRegions
  double entropy_scale = 0.0; // bins per nat: H falls in bin floor(H * entropy_scale), or the last

  // The number of rows of a group. The first one counts every kept voxel (and the bad targets), row
  // 1 + r those of region r.
  std::int64_t rows() const { return 1 + n_regions; }
};

// How many members the running sums are sums of, and the sum of their weights.
struct MemberTotals {
  std::int64_t count = 0;
  double weight = 1.0;
};

struct Finish {
  Maps maps;
  bool normalise = false;
  Counting counting;
};

// Planes of a streamed state, in this order: sums, entropy, squares, votes.
struct StateLayout {
  std::int64_t num_classes = 0;
  bool entropy = false;
  bool square = false;
  bool votes = false;

  std::int64_t entropy_plane() const { return num_classes; }
  std::int64_t square_plane() const { return num_classes + (entropy ? 1 : 0); }
  std::int64_t votes_plane() const { return square_plane() + (square ? num_classes : 0); }
  std::int64_t planes() const { return votes_plane() + (votes ? num_classes : 0); }
};

// The sums that these maps are functions of.
inline StateLayout state_layout_for(const Maps &maps, std::int64_t num_classes) {
  StateLayout layout;
  layout.num_classes = num_classes;
  layout.entropy = maps.wants(Map::kExpectedEntropy) || maps.wants(Map::kMutualInformation);
  layout.square = maps.wants(Map::kVariance);
  layout.votes = maps.wants(Map::kDisagreement);
  return layout;
}

} // namespace fastcal
