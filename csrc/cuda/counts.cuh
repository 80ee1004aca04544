// Where a block counts: one row of the statistics of its group.
#pragma once

#include <cstdint>

#include "cuda/block_histogram.cuh"
#include "cuda/finish.cuh"

namespace fastcal::cuda {

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
  int row_of_group = 0; // 0, or 1 and a region

  // The same for a region's row.
  __device__ __forceinline__ Counts of_row(int which) const { return {a, shared, group, which}; }

  __device__ __forceinline__ std::int64_t *row() const {
    return a.counting.statistics +
           (std::int64_t{group} * a.counting.rows + row_of_group) * a.counting.words;
  }
  __device__ __forceinline__ const Real *thresholds() const {
    return a.thresholds_in_shared ? reinterpret_cast<const Real *>(shared + a.shared.thresholds)
                                  : static_cast<const Real *>(a.threshold_table);
  }
  __device__ __forceinline__ Thresholds<Real> bins() const {
    return {thresholds(), a.counting.n_cells - 1, a.counting.left_closed};
  }
  __device__ __forceinline__ unsigned *scores() const {
    return reinterpret_cast<unsigned *>(in_row(a.shared.scores));
  }
  __device__ __forceinline__ unsigned *predicted() const {
    return reinterpret_cast<unsigned *>(in_row(a.shared.classes));
  }
  __device__ __forceinline__ unsigned *reference() const { return predicted() + a.classes; }
  __device__ __forceinline__ unsigned *true_positive() const { return reference() + a.classes; }
  __device__ __forceinline__ unsigned *shared_bins() const {
    return reinterpret_cast<unsigned *>(in_row(a.shared.bins));
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

  // A voxel of the tile that this row counts: its class and label, or a
  // negative number.
  __device__ __forceinline__ int kept(const Tile<Real> &tile, int slot) const {
    const bool here = row_of_group == 0 || (tile.regions[slot] >> (row_of_group - 1) & 1) != 0;
    return here ? tile.target[slot] : -1;
  }

private:
  __device__ __forceinline__ unsigned char *in_row(int offset) const {
    return shared + row_of_group * a.shared.row_bytes + offset;
  }
};

// What a counted voxel leaves in the tile for the histograms: its class and its
// label.
constexpr int kLabelShift = 16;
constexpr int kTargetMask = (1 << kLabelShift) - 1;

} // namespace fastcal::cuda
