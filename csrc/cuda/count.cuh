// The second stage, statistics: integers only, the same for equal probabilities on every backend.
#pragma once

#include <cstdint>

#include "cuda/block_histogram.cuh"
#include "cuda/finish.cuh"

namespace fastcal::cuda {

// ln x of the statistics: every step one IEEE operation in this order.
__device__ __forceinline__ float log_of_split(float e, float m) {
  const float f = add_exact(m, -1.0F);
  const float s = divide_exact(f, add_exact(f, 2.0F));
  const float z = multiply_exact(s, s);
  float r = 1.0F / 9.0F;
  r = add_exact(multiply_exact(r, z), 1.0F / 7.0F);
  r = add_exact(multiply_exact(r, z), 1.0F / 5.0F);
  r = add_exact(multiply_exact(r, z), 1.0F / 3.0F);
  const float t = add_exact(s, s);
  const float log_m = add_exact(t, multiply_exact(t, multiply_exact(r, z)));
  return add_exact(multiply_exact(e, kLn2), log_m);
}

__device__ __forceinline__ double log_of_split(double e, double m) {
  constexpr int kTerms = 10;
  const double f = add_exact(m, -1.0);
  const double s = divide_exact(f, add_exact(f, 2.0));
  const double z = multiply_exact(s, s);
  double r = 1.0 / (2 * kTerms + 1);
#pragma unroll
  for (int k = kTerms - 1; k >= 1; --k) {
    r = add_exact(multiply_exact(r, z), 1.0 / (2 * k + 1));
  }
  const double t = add_exact(s, s);
  const double log_m = add_exact(t, multiply_exact(t, multiply_exact(r, z)));
  return add_exact(multiply_exact(e, 0.6931471805599453), log_m);
}

__device__ __forceinline__ float log_exact_steps(float x) {
  constexpr int kRoot = 0x3f3504f3;
  const int i = __float_as_int(x) - kRoot;
  return log_of_split(static_cast<float>(i >> 23), __int_as_float((i & 0x007fffff) + kRoot));
}

__device__ __forceinline__ double log_exact_steps(double x) {
  constexpr long long kRoot = 0x3fe6a09e667f3bcd;
  const long long i = __double_as_longlong(x) - kRoot;
  return log_of_split(static_cast<double>(i >> 52),
                      __longlong_as_double((i & 0x000fffffffffffff) + kRoot));
}

// 64-bit words of a block, each as two of 32; the rest of a row's header.
namespace score {
constexpr int kBrierHi = 0;
constexpr int kBrierLo = 1;
constexpr int kNllHi = 2;
constexpr int kNllLo = 3;
constexpr int kBadTargetSum = 4;
constexpr int kWide = 5;
// Then plain 32-bit counts.
constexpr int kVoxels = 2 * kWide;
constexpr int kCorrect = kVoxels + 1;
constexpr int kClipped = kVoxels + 2;
constexpr int kInvalid = kVoxels + 3;
constexpr int kBadTarget = kVoxels + 4;
constexpr int kUnnormalised = kVoxels + 5;
constexpr int kOutOfRange = kVoxels + 6;
static_assert(kOutOfRange + 1 == kScoreWords, "the host reserves as many");
} // namespace score

// Where a block counts.
template <typename Real> struct Counts {
  const PassArguments &a;
  unsigned char *shared;
  std::uint32_t group;

  __device__ __forceinline__ std::int64_t *row() const {
    return a.counting.statistics + group * a.counting.words;
  }
  __device__ __forceinline__ const Real *thresholds() const {
    return a.thresholds_in_shared ? reinterpret_cast<const Real *>(shared + a.shared.thresholds)
                                  : static_cast<const Real *>(a.threshold_table);
  }
  __device__ __forceinline__ Thresholds<Real> bins() const {
    return {thresholds(), a.counting.n_cells - 1, a.counting.left_closed};
  }
  __device__ __forceinline__ unsigned *scores() const {
    return reinterpret_cast<unsigned *>(shared + a.shared.scores);
  }
  __device__ __forceinline__ unsigned *predicted() const {
    return reinterpret_cast<unsigned *>(shared + a.shared.classes);
  }
  __device__ __forceinline__ unsigned *reference() const { return predicted() + a.classes; }
  __device__ __forceinline__ unsigned *true_positive() const { return reference() + a.classes; }
  __device__ __forceinline__ unsigned *shared_bins() const {
    return reinterpret_cast<unsigned *>(shared + a.shared.bins);
  }

  __device__ __forceinline__ Histogram histogram(std::int64_t word) const {
    return {a.bins_in_shared ? shared_bins() + (word - a.counting.top_label_bins) : nullptr,
            row() + word};
  }
  __device__ __forceinline__ Histogram top_label() const {
    return histogram(a.counting.top_label_bins);
  }
  __device__ __forceinline__ Histogram classwise(int c) const {
    return histogram(a.counting.classwise_bins + std::int64_t{kBinWords} * c * a.counting.n_cells);
  }
};

// What a thread adds up over its voxels of a tile.
struct Tally {
  std::int64_t brier = 0;
  std::int64_t nll = 0;
  unsigned voxels = 0;
  unsigned correct = 0;

  __device__ __forceinline__ void flush(unsigned *scores, int lane) {
    const unsigned all_voxels = warp_sum(voxels);
    const unsigned all_correct = warp_sum(correct);
    const std::int64_t all_brier = warp_sum(brier);
    const std::int64_t all_nll = warp_sum(nll);
    if (lane == 0) {
      atomicAdd(scores + score::kVoxels, all_voxels);
      atomicAdd(scores + score::kCorrect, all_correct);
      add_real(scores + 2 * score::kBrierHi, all_brier);
      add_real(scores + 2 * score::kNllHi, all_nll);
    }
  }

private:
  __device__ __forceinline__ static void add_real(unsigned *hi_lo, std::int64_t sum) {
    add_shared(hi_lo, static_cast<std::uint64_t>(sum >> kFractionBits));
    add_shared(hi_lo + 2, static_cast<std::uint64_t>(sum & kFractionMask));
  }
};

// ------------------------------------------------------------------------------------ targets

// The class of a voxel that counts (0 when multilabel), or -1; what is wrong with it is counted.
template <bool kPlain, typename Real>
__device__ __forceinline__ int read_target(const PassArguments &a, const Counts<Real> &counts,
                                           std::int64_t voxel, const Outcome<Real> &out) {
  const CountingArguments &c = a.counting;
  if (c.mask.data != nullptr && static_cast<const std::uint8_t *>(
                                    c.mask.data)[offset_of(a.grid, c.mask.strides, voxel)] == 0) {
    return -1;
  }
  const std::int64_t offset = offset_of(a.grid, c.target.strides, voxel);
  const int planes = is_multilabel<kPlain>(a) ? a.classes : 1;
  const std::int64_t limit = is_multilabel<kPlain>(a) ? 2 : a.classes;
  std::int64_t value = 0;
  std::int64_t bad_sum = 0;
  bool bad = false;
#pragma unroll 1
  for (int k = 0; k < planes; ++k) {
    value = load_integer(c.target, offset + k * c.target.class_stride);
    if (c.has_ignore_index && value == c.ignore_index) {
      return -1;
    }
    if (value < 0 || value >= limit) {
      bad = true;
      bad_sum += value;
    }
  }
  if (bad) {
    atomicAdd(counts.scores() + score::kBadTarget, 1U);
    add_shared(counts.scores() + 2 * score::kBadTargetSum, static_cast<std::uint64_t>(bad_sum));
    return -1;
  }
  if (!out.valid) {
    atomicAdd(counts.scores() + score::kInvalid, 1U);
    if (out.finite) {
      atomicAdd(counts.scores() + score::kOutOfRange, 1U);
    }
    return -1;
  }
  return is_multilabel<kPlain>(a) ? 0 : static_cast<int>(value);
}

// ------------------------------------------------------------------------------------- scores

// q(-ln max(p, eps))
template <typename Real>
__device__ __forceinline__ std::int64_t surprise(const PassArguments &a, const Counts<Real> &counts,
                                                 Real p) {
  const Real eps = static_cast<Real>(a.counting.eps);
  if (p < eps) {
    atomicAdd(counts.scores() + score::kClipped, 1U);
    p = eps;
  }
  return fixed_point(-log_exact_steps(p));
}

// A voxel of exclusive classes that counts.
template <bool kPlain, typename Real>
__device__ __forceinline__ void count_voxel(const PassArguments &a, const Counts<Real> &counts,
                                            const Tile<Real> &tile, int slot, int target,
                                            const Outcome<Real> &out, Tally &tally) {
  Real squares = 0;
#pragma unroll kClassUnroll < Real>
  for (int c = 0; c < a.classes; ++c) {
    const Real p = tile.sum_at(c, slot);
    const Real d = c == target ? add_exact(p, Real{-1}) : p;
    squares = add_exact(squares, multiply_exact(d, d));
  }
  tally.brier += fixed_point(squares);
  tally.nll += surprise(a, counts, tile.sum_at(target, slot));
  const bool correct = out.label == target;
  tally.voxels += 1;
  tally.correct += correct ? 1 : 0;
  atomicAdd(counts.predicted() + out.label, 1U);
  atomicAdd(counts.reference() + target, 1U);
  if (correct) {
    atomicAdd(counts.true_positive() + target, 1U);
  }
  if (!kPlain && a.counting.checks_sum) {
    const Real excess = add_exact(out.class_sum, Real{-1});
    if (excess > Real(1e-3) || excess < Real(-1e-3)) {
      atomicAdd(counts.scores() + score::kUnnormalised, 1U);
    }
  }
}

// One class of a multilabel voxel that counts, a Bernoulli of its own.
template <typename Real>
__device__ __forceinline__ void count_binary(const PassArguments &a, const Counts<Real> &counts,
                                             int c, Real p, bool positive, Tally &tally,
                                             OuterBins<Real> &top_label) {
  const bool label = p > Real(0.5);
  const bool correct = label == positive;
  const Real d = positive ? add_exact(p, Real{-1}) : p;
  tally.brier += fixed_point(multiply_exact(d, d));
  tally.nll += surprise(a, counts, positive ? p : add_exact(Real{1}, -p));
  tally.correct += correct ? 1 : 0;
  if (label) {
    atomicAdd(counts.predicted() + c, 1U);
  }
  if (positive) {
    atomicAdd(counts.reference() + c, 1U);
  }
  if (label && positive) {
    atomicAdd(counts.true_positive() + c, 1U);
  }
  if (a.counting.top_label) {
    const Real confidence = label ? p : add_exact(Real{1}, -p);
    top_label.add(counts.bins(), counts.top_label(), confidence, correct);
  }
}

// ---------------------------------------------------------------------------------- one tile

// What a counted voxel leaves in the tile for the histograms: its class and its label.
constexpr int kLabelShift = 16;

// A histogram after the other: top-label (-1), then each class's own.
template <typename Real>
__device__ __forceinline__ void count_bins(const PassArguments &a, const Counts<Real> &counts,
                                           const Tile<Real> &tile) {
  const Thresholds<Real> bins = counts.bins();
#pragma unroll 1
  for (int c = a.counting.top_label ? -1 : 0; c < (a.counting.classwise ? a.classes : 0); ++c) {
    const Histogram histogram = c < 0 ? counts.top_label() : counts.classwise(c);
    OuterBins<Real> outer;
#pragma unroll 1
    for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
      const int packed = tile.target[slot];
      if (packed < 0) {
        continue;
      }
      const int target = packed & ((1 << kLabelShift) - 1);
      const int which = c < 0 ? packed >> kLabelShift : c;
      outer.add(bins, histogram, tile.sum_at(which, slot), which == target);
    }
    __syncwarp();
    outer.flush(bins, histogram, tile.lane);
  }
}

// Multilabel: scores and histograms class by class.
template <typename Real>
__device__ __forceinline__ void count_multilabel(const PassArguments &a, const Counts<Real> &counts,
                                                 const Tile<Real> &tile) {
  const Thresholds<Real> bins = counts.bins();
  const View &target = a.counting.target;
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    Tally tally;
    OuterBins<Real> classwise;
    OuterBins<Real> top_label;
#pragma unroll 1
    for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
      if (tile.target[slot] < 0) {
        continue;
      }
      const Real p = tile.sum_at(c, slot);
      const std::int64_t offset = offset_of(a.grid, target.strides, tile.first + slot);
      const bool positive = load_integer(target, offset + c * target.class_stride) == 1;
      count_binary(a, counts, c, p, positive, tally, top_label);
      if (a.counting.classwise) {
        classwise.add(bins, counts.classwise(c), p, positive);
      }
    }
    __syncwarp();
    if (a.counting.classwise) {
      classwise.flush(bins, counts.classwise(c), tile.lane);
    }
    if (a.counting.top_label) {
      top_label.flush(bins, counts.top_label(), tile.lane);
    }
    tally.flush(counts.scores(), tile.lane);
  }
}

// Maps and statistics of a warp's tile.
template <bool kPlain, typename Real>
__device__ __forceinline__ void finish_tile(const PassArguments &a, const Counts<Real> &counts,
                                            const Tile<Real> &tile) {
  Tally tally;
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    const Outcome<Real> out = finish_voxel<kPlain>(a, tile, slot);
    if (!a.counting.wanted) {
      continue;
    }
    const int target = read_target<kPlain>(a, counts, tile.first + slot, out);
    tile.target[slot] = target < 0 ? target : target | out.label << kLabelShift;
    if (target < 0) {
      continue;
    }
    if (is_multilabel<kPlain>(a)) {
      tally.voxels += 1;
    } else {
      count_voxel<kPlain>(a, counts, tile, slot, target, out, tally);
    }
  }
  if (!a.counting.wanted) {
    return;
  }
  __syncwarp();
  tally.flush(counts.scores(), tile.lane);
  if (is_multilabel<kPlain>(a)) {
    count_multilabel(a, counts, tile);
  } else {
    count_bins(a, counts, tile);
  }
}

// ------------------------------------------------------------------------------ one block's row

template <typename Real>
__device__ __forceinline__ void load_thresholds(const PassArguments &a,
                                                const Counts<Real> &counts) {
  if (!a.thresholds_in_shared) {
    return;
  }
  Real *to = reinterpret_cast<Real *>(counts.shared + a.shared.thresholds);
  const Real *table = static_cast<const Real *>(a.threshold_table);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < a.counting.n_cells - 1;
       i += static_cast<int>(blockDim.x)) {
    to[i] = table == nullptr ? static_cast<Real>(a.thresholds[i]) : table[i];
  }
}

template <typename Real>
__device__ __forceinline__ void clear_counts(const PassArguments &a, const Counts<Real> &counts) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < a.shared.cleared_words;
       i += static_cast<int>(blockDim.x)) {
    counts.scores()[i] = 0;
  }
}

// By the whole block, between barriers.
template <typename Real>
__device__ __forceinline__ void add_counts(const PassArguments &a, const Counts<Real> &counts) {
  std::int64_t *row = counts.row();
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  if (thread == 0) {
    const unsigned *s = counts.scores();
    add_global(row + word::kBrier, static_cast<std::int64_t>(read_shared(s + 2 * score::kBrierHi)));
    add_global_real(row + word::kBrier,
                    static_cast<std::int64_t>(read_shared(s + 2 * score::kBrierLo)));
    add_global(row + word::kNll, static_cast<std::int64_t>(read_shared(s + 2 * score::kNllHi)));
    add_global_real(row + word::kNll,
                    static_cast<std::int64_t>(read_shared(s + 2 * score::kNllLo)));
    add_global(row + word::kBadTargetSum,
               static_cast<std::int64_t>(read_shared(s + 2 * score::kBadTargetSum)));
    add_global(row + word::kVoxels, s[score::kVoxels]);
    add_global(row + word::kCorrect, s[score::kCorrect]);
    add_global(row + word::kClipped, s[score::kClipped]);
    add_global(row + word::kInvalid, s[score::kInvalid]);
    add_global(row + word::kBadTarget, s[score::kBadTarget]);
    add_global(row + word::kUnnormalised, s[score::kUnnormalised]);
    add_global(row + word::kOutOfRange, s[score::kOutOfRange]);
  }
#pragma unroll 1
  for (int i = thread; i < 3 * a.classes; i += threads) {
    add_global(row + a.counting.predicted + i, counts.predicted()[i]);
  }
  if (!a.bins_in_shared) {
    return;
  }
  const int n_bins = static_cast<int>((a.counting.words - a.counting.top_label_bins) / kBinWords);
#pragma unroll 1
  for (int i = thread; i < n_bins; i += threads) {
    const unsigned *bin = counts.shared_bins() + kBinWords * i;
    std::int64_t *to = row + a.counting.top_label_bins + std::int64_t{kBinWords} * i;
    add_global(to, bin[0]);
    add_global(to + 1, bin[1]);
    add_global_real(to + 2, static_cast<std::int64_t>(read_shared(bin + 2)));
  }
}

} // namespace fastcal::cuda
