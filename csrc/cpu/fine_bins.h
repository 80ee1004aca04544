// Adds a plane of values to its fine histogram. The cells are the leading bits of p below 1/2, and
// those of 1 - p from 1/2 on. Included only by the statistics stage of one instruction set.
#pragma once

#include "cpu/vec.h"

namespace fastcal::cpu::FASTCAL_ISA {

// The formula is that of StatisticsLayout::fine_shift().
template <typename Real>
static inline IntVec<Real> fine_cells(Vec<Real> p, std::int64_t fine_bins, int shift) {
  constexpr int kMantissa = sizeof(Real) == 4 ? 23 : 52;
  constexpr std::int64_t kQuarter = sizeof(Real) == 4 ? 125 : 1021;
  constexpr std::int64_t kFirst = kQuarter - (kFineOctaves - 1);
  const IntVec<Real> none = {};
  const IntVec<Real> highest = splat_int<Real>(fine_bins / 2 - 1);
  const IntVec<Real> low = p < Real{0.5};
  const Vec<Real> d = low ? p : Real{1} - p;
  IntVec<Real> index = reinterpret_cast<IntVec<Real>>(d) >> (kMantissa - shift);
  index -= splat_int<Real>(kFirst << shift);
  index = index < none ? none : index;
  index = index > highest ? highest : index;
  return low ? index : splat_int<Real>(fine_bins - 1) - index;
}

template <typename Real, typename Hit>
static void count_fine(const Real *values, const std::int32_t *keep, std::int64_t voxels,
                       const StatisticsLayout &layout, const Hit &hit, std::int64_t *cells) {
  constexpr std::int64_t kCount = Lanes<Real>::kCount;
  const int shift = layout.fine_shift();
  for (std::int64_t i = 0; i < voxels; i += kCount) {
    std::uint32_t kept = Mask<Real>::set(keep + i).bits();
    if (kept == 0) {
      continue;
    }
    const std::uint32_t hits = hit(i).bits();
    const IntVec<Real> cell = fine_cells<Real>(load(values + i), layout.fine_bins, shift);
    alignas(64) typename Lanes<Real>::Int cell_of[kCount];
    store(cell_of, cell);
    // The neighbours of a saturated network share a cell.
    const std::int64_t first = cell_of[__builtin_ctz(kept)];
    const std::uint32_t same = kept & bits_of<Real>(cell == splat_int<Real>(first));
    cells[kFineWords * first] += __builtin_popcount(same);
    cells[kFineWords * first + 1] += __builtin_popcount(same & hits);
    for (kept &= ~same; kept != 0; kept &= kept - 1) {
      const int lane = __builtin_ctz(kept);
      std::int64_t *entry = cells + kFineWords * cell_of[lane];
      entry[0] += 1;
      entry[1] += (hits >> lane) & 1;
    }
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
