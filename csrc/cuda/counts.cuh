// Where a block counts: rows of statistics in shared memory, from clearing them to adding them to
// the result.
#pragma once

#include <cstdint>

#include "cuda/block_histogram.cuh"
#include "cuda/finish.cuh"

namespace fastcal::cuda {

// The header of a row in shared memory. First come words of 64 bits, each as two of 32.
namespace score {
constexpr int kBrierHi = 0;
constexpr int kBrierLo = 1;
constexpr int kNllHi = 2;
constexpr int kNllLo = 3;
constexpr int kBadTargetSum = 4;
constexpr int kWide = 5;
// Counts of 32 bits follow.
constexpr int kVoxels = 2 * kWide;
constexpr int kCorrect = kVoxels + 1;
constexpr int kClipped = kVoxels + 2;
constexpr int kInvalid = kVoxels + 3;
constexpr int kBadTarget = kVoxels + 4;
constexpr int kUnnormalised = kVoxels + 5;
constexpr int kOutOfRange = kVoxels + 6;
static_assert(kOutOfRange + 1 == kScoreWords, "the host reserves as many");
} // namespace score

// Addresses of one row of the block's group.
template <typename Real> struct Counts {
  const PassArguments &a;
  unsigned char *shared;
  std::uint32_t group;
  int row_of_group = 0; // 0, or 1 + the region

  // The same group's row of everything (0) or of a region (1 and up).
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
    return {thresholds(), a.counting.n_cells - 1, a.counting.left_closed, a.counting.even_bins};
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

  // Class and label of a voxel of the tile that this row counts; negative for others.
  __device__ __forceinline__ int kept(const Tile<Real> &tile, int slot) const {
    const bool here = row_of_group == 0 || (tile.regions[slot] >> (row_of_group - 1) & 1) != 0;
    return here ? tile.target[slot] : -1;
  }

private:
  __device__ __forceinline__ unsigned char *in_row(int offset) const {
    return shared + row_of_group * a.shared.row_bytes + offset;
  }
};

// How a counted voxel leaves its class and its label in the tile, for the histograms.
constexpr int kLabelShift = 16;
constexpr int kTargetMask = (1 << kLabelShift) - 1;

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

// Adds one row of the group to the result. To be called by the whole block, between barriers.
template <typename Real>
__device__ __forceinline__ void add_row(const PassArguments &a, const Counts<Real> &counts) {
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
  const int n_bins =
      static_cast<int>((a.counting.moment_bins - a.counting.top_label_bins) / kBinWords);
#pragma unroll 1
  for (int i = thread; i < n_bins; i += threads) {
    const unsigned *bin = counts.shared_bins() + kBinWords * i;
    std::int64_t *to = row + a.counting.top_label_bins + std::int64_t{kBinWords} * i;
    add_global(to, std::int64_t{bin[0]} + bin[1]);
    add_global(to + 1, bin[1]);
    add_global_real(to + 2, static_cast<std::int64_t>(read_shared(bin + 2)));
  }
}

template <typename Real>
__device__ __forceinline__ void add_counts(const PassArguments &a, const Counts<Real> &counts) {
#pragma unroll 1
  for (int row = 0; row < a.counting.rows; ++row) {
    add_row(a, counts.of_row(row));
  }
}

} // namespace fastcal::cuda
