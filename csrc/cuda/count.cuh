// The second stage, statistics: integers only, so that equal probabilities give equal statistics on
// every backend.
#pragma once

#include <cstdint>

#include "cuda/counts.cuh"
#include "cuda/exact_log.cuh"
#include "cuda/extras.cuh"

namespace fastcal::cuda {

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

// The class of a voxel that counts (0 when multilabel), or -1. Bad targets and invalid voxels are
// counted as such.
template <bool kPlain, typename Real>
__device__ __forceinline__ int read_target(const PassArguments &a, const Counts<Real> &counts,
                                           std::int64_t voxel, const Outcome<Real> &out,
                                           unsigned regions) {
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
    for (int row = 0; row < c.rows; ++row) {
      if (row == 0 || (regions >> (row - 1) & 1) != 0) {
        unsigned *scores = counts.of_row(row).scores();
        atomicAdd(scores + score::kInvalid, 1U);
        if (out.finite) {
          atomicAdd(scores + score::kOutOfRange, 1U);
        }
      }
    }
    return -1;
  }
  return is_multilabel<kPlain>(a) ? 0 : static_cast<int>(value);
}

// -ln max(p, eps) in fixed point
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

// Counts one voxel of exclusive classes.
template <bool kPlain, typename Real>
__device__ __forceinline__ void count_voxel(const PassArguments &a, const Counts<Real> &counts,
                                            const Tile<Real> &tile, int slot, int target, int label,
                                            Tally &tally) {
  Real squares = 0;
  Real class_sum = 0;
  [[maybe_unused]] constexpr int kUnroll = kClassUnroll<Real>;
#pragma unroll kUnroll
  for (int c = 0; c < a.classes; ++c) {
    const Real p = tile.sum_at(c, slot);
    const Real d = c == target ? add_exact(p, Real{-1}) : p;
    squares = add_exact(squares, multiply_exact(d, d));
    class_sum = add_exact(class_sum, p);
  }
  tally.brier += fixed_point(squares);
  tally.nll += surprise(a, counts, tile.sum_at(target, slot));
  const bool correct = label == target;
  tally.voxels += 1;
  tally.correct += correct ? 1 : 0;
  atomicAdd(counts.predicted() + label, 1U);
  atomicAdd(counts.reference() + target, 1U);
  if (correct) {
    atomicAdd(counts.true_positive() + target, 1U);
  }
  if (!kPlain && a.counting.checks_sum) {
    const Real excess = add_exact(class_sum, Real{-1});
    if (excess > Real(1e-3) || excess < Real(-1e-3)) {
      atomicAdd(counts.scores() + score::kUnnormalised, 1U);
    }
  }
}

// Counts one class of a multilabel voxel, which is a Bernoulli variable of its own.
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

// Counts the scores of exclusive classes.
template <bool kPlain, typename Real>
__device__ __forceinline__ void count_scores(const PassArguments &a, const Counts<Real> &counts,
                                             const Tile<Real> &tile) {
  Tally tally;
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    const int packed = counts.kept(tile, slot);
    if (packed >= 0) {
      count_voxel<kPlain>(a, counts, tile, slot, packed & kTargetMask, packed >> kLabelShift,
                          tally);
    }
  }
  __syncwarp();
  tally.flush(counts.scores(), tile.lane);
}

// Counts one histogram after the other: the top-label one (-1), then that of each class.
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
      const int packed = counts.kept(tile, slot);
      if (packed < 0) {
        continue;
      }
      const int target = packed & kTargetMask;
      const int which = c < 0 ? packed >> kLabelShift : c;
      outer.add(bins, histogram, tile.sum_at(which, slot), which == target);
    }
    __syncwarp();
    outer.flush(bins, histogram, tile.lane);
  }
}

// Counts scores and histograms of multilabel classes, class by class.
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
      if (counts.kept(tile, slot) < 0) {
        continue;
      }
      tally.voxels += c == 0 ? 1 : 0;
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

// Leaves in the tile how one of its voxels counts: its class and its label, and its regions.
template <bool kPlain, typename Real>
__device__ __forceinline__ void note_target(const PassArguments &a, const Counts<Real> &counts,
                                            const Tile<Real> &tile, int slot,
                                            const Outcome<Real> &out) {
  const CountingArguments &c = a.counting;
  const std::int64_t voxel = tile.first + slot;
  std::uint8_t inside = 0;
  if (c.rows > 1) {
    inside = static_cast<const std::uint8_t *>(
        c.regions.data)[offset_of(a.grid, c.regions.strides, voxel)];
    tile.regions[slot] = inside;
  }
  const int target = read_target<kPlain>(a, counts, voxel, out, inside);
  tile.target[slot] = target < 0 ? target : target | out.label << kLabelShift;
}

// Counts what note_target left.
template <bool kPlain, typename Real>
__device__ __forceinline__ void count_tile(const PassArguments &a, const Counts<Real> &counts,
                                           const Tile<Real> &tile) {
  const CountingArguments &c = a.counting;
#pragma unroll 1
  for (int row = 0; row < c.rows; ++row) {
    const Counts<Real> of_row = counts.of_row(row);
    if (is_multilabel<kPlain>(a)) {
      count_multilabel(a, of_row, tile);
    } else {
      count_scores<kPlain>(a, of_row, tile);
      count_bins(a, of_row, tile);
    }
    if (c.moments || c.fine_bins > 0 || c.entropy_bins > 0) {
      count_extras<kPlain>(a, of_row, tile);
    }
  }
}

// Writes the maps and counts the statistics of a warp's tile.
template <bool kPlain, typename Real>
__device__ __forceinline__ void finish_tile(const PassArguments &a, const Counts<Real> &counts,
                                            const Tile<Real> &tile) {
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    const Outcome<Real> out = finish_voxel<kPlain>(a, tile, slot);
    if (a.counting.wanted) {
      note_target<kPlain>(a, counts, tile, slot, out);
    }
  }
  if (a.counting.wanted) {
    __syncwarp();
    count_tile<kPlain>(a, counts, tile);
  }
}

} // namespace fastcal::cuda
