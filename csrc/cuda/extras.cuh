// What a row of statistics holds on request: second moments, fine cells, entropies. They are
// counted in device memory. Only the outer cells, where nearly all voxels fall, are added up in
// registers first.
#pragma once

#include <cstdint>

#include "cuda/counts.cuh"
#include "cuda/exact_log.cuh"

namespace fastcal::cuda {

// The cells {count, hits} of one histogram.
class OuterCells {
public:
  __device__ __forceinline__ OuterCells(std::int64_t *cells, int count)
      : cells_(cells), last_(count - 1) {}

  __device__ __forceinline__ void add(int cell, bool hit) {
    const unsigned one = 1U + (hit ? 1U << kHitShift : 0U);
    if (cell == 0) {
      in_first_ += one;
    } else if (cell == last_) {
      in_last_ += one;
    } else {
      add_to(cell, one);
    }
  }

  // To be called by all lanes of a warp together.
  __device__ __forceinline__ void flush(int lane) {
    const unsigned first = warp_sum(in_first_);
    const unsigned last = warp_sum(in_last_);
    if (lane == 0) {
      add_to(0, first);
      add_to(last_, last);
    }
  }

private:
  static constexpr int kHitShift = 16; // the counts of a tile are below 2^16

  __device__ __forceinline__ void add_to(int cell, unsigned counts) const {
    std::int64_t *to = cells_ + std::int64_t{kFineWords} * cell;
    add_global(to, counts & ((1U << kHitShift) - 1));
    add_global(to + 1, counts >> kHitShift);
  }

  std::int64_t *cells_;
  int last_;
  unsigned in_first_ = 0;
  unsigned in_last_ = 0;
};

// The sums {p^2 hi, lo, p y hi, lo} of the bins of one class.
template <typename Real> class OuterMoments {
public:
  __device__ __forceinline__ void add(const Thresholds<Real> &bins, std::int64_t *cells, Real p,
                                      bool positive) {
    const double exact = static_cast<double>(p);
    const std::int64_t square = fixed_point(multiply_exact(exact, exact));
    const std::int64_t product = positive ? fixed_probability(p) : 0;
    if (bins.above(p, bins.last())) {
      last_square_ += square;
      last_product_ += product;
    } else if (!bins.above(p, bins.first())) {
      first_square_ += square;
      first_product_ += product;
    } else {
      add_to(cells + std::int64_t{kBinWords} * bins.cell_of(p), square, product);
    }
  }

  // To be called by all lanes of a warp together.
  __device__ __forceinline__ void flush(const Thresholds<Real> &bins, std::int64_t *cells,
                                        int lane) {
    const std::int64_t first_square = warp_sum(first_square_);
    const std::int64_t first_product = warp_sum(first_product_);
    const std::int64_t last_square = warp_sum(last_square_);
    const std::int64_t last_product = warp_sum(last_product_);
    if (lane == 0) {
      add_to(cells, first_square, first_product);
      add_to(cells + std::int64_t{kBinWords} * bins.count, last_square, last_product);
    }
  }

private:
  __device__ __forceinline__ static void add_to(std::int64_t *cell, std::int64_t square,
                                                std::int64_t product) {
    add_global_real(cell, square);
    add_global_real(cell + 2, product);
  }

  std::int64_t first_square_ = 0;
  std::int64_t first_product_ = 0;
  std::int64_t last_square_ = 0;
  std::int64_t last_product_ = 0;
};

// The formula is that of StatisticsLayout::fine_shift().
__device__ __forceinline__ int fine_index(float d, int shift) {
  constexpr int kFirst = 125 - (kFineOctaves - 1);
  return (__float_as_int(d) >> (23 - shift)) - (kFirst << shift);
}
__device__ __forceinline__ int fine_index(double d, int shift) {
  constexpr long long kFirst = 1021 - (kFineOctaves - 1);
  const long long index = (__double_as_longlong(d) >> (52 - shift)) - (kFirst << shift);
  return index<0 ? -1 : index>(1 << 30) ? 1 << 30 : static_cast<int>(index);
}

template <typename Real>
__device__ __forceinline__ int fine_cell(const CountingArguments &c, Real p) {
  const bool low = p < Real(0.5);
  const int highest = c.fine_bins / 2 - 1;
  int index = fine_index(low ? p : add_exact(Real{1}, -p), c.fine_shift);
  index = index < 0 ? 0 : index > highest ? highest : index;
  return low ? index : c.fine_bins - 1 - index;
}

// h - p ln p, with the logarithm of the statistics and 0 ln 0 = 0.
template <typename Real> __device__ __forceinline__ Real less_p_ln_p(Real h, Real p) {
  const Real log = log_exact_steps(larger(p, smallest_normal<Real>()));
  return add_exact(h, -multiply_exact(p, log));
}

template <typename Real>
__device__ __forceinline__ int entropy_bin(const CountingArguments &c, Real h) {
  const int bin = static_cast<int>(multiply_exact(h, static_cast<Real>(c.entropy_scale)));
  return bin < 0 ? 0 : bin >= c.entropy_bins ? c.entropy_bins - 1 : bin;
}

// Counts one entropy per voxel of exclusive classes.
template <typename Real>
__device__ __forceinline__ void count_entropies(const PassArguments &a, const Counts<Real> &counts,
                                                const Tile<Real> &tile) {
  const CountingArguments &c = a.counting;
  OuterCells cells(counts.row() + c.entropy_cells, c.entropy_bins);
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    const int packed = counts.kept(tile, slot);
    if (packed < 0) {
      continue;
    }
    Real h = 0;
#pragma unroll 1
    for (int k = 0; k < a.classes; ++k) {
      h = less_p_ln_p(h, tile.sum_at(k, slot));
    }
    cells.add(entropy_bin(c, h), packed >> kLabelShift == (packed & kTargetMask));
  }
  __syncwarp();
  cells.flush(tile.lane);
}

// Counts what is asked of one class of a tile, or of the confidence of exclusive classes (-1).
template <bool kPlain, typename Real>
__device__ __forceinline__ void count_class_extras(const PassArguments &a,
                                                   const Counts<Real> &counts,
                                                   const Tile<Real> &tile, int which) {
  const CountingArguments &c = a.counting;
  const bool multilabel = is_multilabel<kPlain>(a);
  const Thresholds<Real> bins = counts.bins();
  std::int64_t *const row = counts.row();
  std::int64_t *const moments = row + c.moment_bins + std::int64_t{kBinWords} * which * c.n_cells;
  std::int64_t *const top = row + c.fine_top_label;
  OuterCells fine(
      which < 0 ? top : row + c.fine_classwise + std::int64_t{kFineWords} * which * c.fine_bins,
      c.fine_bins);
  OuterCells fine_top(top, c.fine_bins);
  OuterCells entropies(row + c.entropy_cells, c.entropy_bins);
  OuterMoments<Real> sums;
#pragma unroll 1
  for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
    const int packed = counts.kept(tile, slot);
    if (packed < 0) {
      continue;
    }
    const int target = packed & kTargetMask;
    const int label = packed >> kLabelShift;
    const Real p = tile.sum_at(which < 0 ? label : which, slot);
    bool hit = (which < 0 ? label : which) == target;
    if (multilabel) {
      const std::int64_t at = offset_of(a.grid, c.target.strides, tile.first + slot);
      hit = load_integer(c.target, at + which * c.target.class_stride) == 1;
      const bool above = p > Real(0.5);
      const bool correct = above == hit;
      const Real rest = add_exact(Real{1}, -p);
      if (c.top_label && c.fine_bins > 0) {
        fine_top.add(fine_cell(c, above ? p : rest), correct);
      }
      if (c.entropy_bins > 0) {
        entropies.add(entropy_bin(c, less_p_ln_p(less_p_ln_p(Real{0}, p), larger(rest, Real{0}))),
                      correct);
      }
    }
    if (c.fine_bins > 0 && (which < 0 || c.classwise)) {
      fine.add(fine_cell(c, p), hit);
    }
    if (c.moments && which >= 0) {
      sums.add(bins, moments, p, hit);
    }
  }
  __syncwarp();
  if (c.fine_bins > 0 && (which < 0 || c.classwise)) {
    fine.flush(tile.lane);
  }
  if (c.moments && which >= 0) {
    sums.flush(bins, moments, tile.lane);
  }
  if (multilabel && c.top_label && c.fine_bins > 0) {
    fine_top.flush(tile.lane);
  }
  if (multilabel && c.entropy_bins > 0) {
    entropies.flush(tile.lane);
  }
}

template <bool kPlain, typename Real>
__device__ __forceinline__ void count_extras(const PassArguments &a, const Counts<Real> &counts,
                                             const Tile<Real> &tile) {
  const CountingArguments &c = a.counting;
  const bool multilabel = is_multilabel<kPlain>(a);
  const bool classes = multilabel || (c.classwise && (c.moments || c.fine_bins > 0));
#pragma unroll 1
  for (int which = !multilabel && c.top_label && c.fine_bins > 0 ? -1 : 0;
       which < (classes ? a.classes : 0); ++which) {
    count_class_extras<kPlain>(a, counts, tile, which);
  }
  if (!multilabel && c.entropy_bins > 0) {
    count_entropies(a, counts, tile);
  }
}

} // namespace fastcal::cuda
