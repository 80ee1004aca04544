// Adds the second moments of a plane of values to its bins. Included only by the statistics stage
// of one instruction set.
#pragma once

#include "cpu/bins.h"

namespace fastcal::cpu::FASTCAL_ISA {

// p^2 in fixed point: the product in double, which is exact for floats, is rounded once.
template <typename Real> static inline void fixed_squares(Vec<Real> p, std::int64_t *fixed) {
  if constexpr (sizeof(Real) == 8) {
    FixedPointSum<double>::each(p * p, fixed);
  } else {
    constexpr std::int64_t kHalf = FASTCAL_VECTOR_BYTES / 8;
    const Doubles low = low_half(p);
    const Doubles high = high_half(p);
    FixedPointSum<double>::each(low * low, fixed);
    FixedPointSum<double>::each(high * high, fixed + kHalf);
  }
}

// Adds to cells [n_cells]{sum p^2 hi, lo, sum p y hi, lo}; the sums are left in lo.
template <typename Real, typename Hit>
static void count_moments(const Real *values, const std::int32_t *keep, std::int64_t voxels,
                          const Thresholds<Real> &bins, const Hit &hit, std::int64_t *cells) {
  constexpr std::int64_t kCount = Lanes<Real>::kCount;
  for (std::int64_t i = 0; i < voxels; i += kCount) {
    std::uint32_t kept = Mask<Real>::set(keep + i).bits();
    if (kept == 0) {
      continue;
    }
    const std::uint32_t hits = hit(i).bits();
    const Vec<Real> p = load(values + i);
    alignas(64) typename Lanes<Real>::Int cell_of[kCount];
    alignas(64) std::int64_t fixed[kCount];
    alignas(64) std::int64_t squares[kCount];
    FixedPointSum<Real>::each(p, fixed);
    fixed_squares<Real>(p, squares);
    find_cells<Real>(bins, p, values + i, cell_of);
    for (; kept != 0; kept &= kept - 1) {
      const int lane = __builtin_ctz(kept);
      std::int64_t *cell = cells + kBinWords * cell_of[lane];
      cell[1] += squares[lane];
      cell[3] += fixed[lane] & -static_cast<std::int64_t>((hits >> lane) & 1);
    }
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
