// Sums over one block in a pass of temperature scaling, and tests of what is a number. Included
// only by the temperature stage of one instruction set.
#pragma once

#include "cpu/temperature_block.h"
#include "cpu/vec_math.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> constexpr Real infinity() { return static_cast<Real>(__builtin_inf()); }

// A sum of reals in double: each lane by itself, then the lanes in their order.
template <typename Real> struct DoubleSum {
  Doubles low = {};
  Doubles high = {};

  inline void add(Vec<Real> values) {
    if constexpr (sizeof(Real) == 8) {
      low += values;
    } else {
      low += low_half(values);
      high += high_half(values);
    }
  }
  inline double total() const {
    const Doubles both = low + high;
    double sum = 0.0;
    for (std::size_t lane = 0; lane < sizeof(Doubles) / sizeof(double); ++lane) {
      sum += both[lane];
    }
    return sum;
  }
};

// The same, except that the vectors of a group are first added up in Real. `settle` ends a group.
template <typename Real> struct GroupedSum {
  static constexpr std::int64_t kVoxels = 4 * Lanes<Real>::kCount; // in a group

  Vec<Real> pending = {};
  DoubleSum<Real> sum;

  inline void add(Mask<Real> kept, Vec<Real> values) {
    pending = kept.choose(pending + values, pending);
  }
  inline void settle() {
    sum.add(pending);
    pending = Vec<Real>{};
  }
};

// The sum of the logarithms of all totals of a block, each between 1 and the number of classes.
// Floats are multiplied in double, which loses nothing of them, so that one logarithm per block is
// enough. The product of a lane stays far below the largest double, since blocks of many classes
// have few voxels.
template <typename Real> struct LogOfTotals {
  DoubleSum<Real> logs;
  Doubles low = Doubles{} + 1.0;
  Doubles high = Doubles{} + 1.0;

  inline void add(Mask<Real> kept, Vec<Real> total) {
    const Vec<Real> factor = kept.choose(total, splat<Real>(1));
    if constexpr (sizeof(Real) == 8) {
      logs.low += log2_vector<double>(factor);
    } else {
      low *= low_half(factor);
      high *= high_half(factor);
    }
  }
  inline double total() {
    if constexpr (sizeof(Real) == 4) {
      logs.low = log2_vector<double>(low);
      logs.high = log2_vector<double>(high);
    }
    return logs.total() * Constants<double>::kLn2;
  }
};

// What rounding lost when `total` = 1 + x was summed: ln total plus this is ln(1 + x).
template <typename Real> static inline Vec<Real> lost_in(Vec<Real> total, Vec<Real> x) {
  return x - (total - Real{1});
}

// Takes those voxels of one vector that are not numbers out of `keep`, and counts them.
template <typename Real>
static inline Mask<Real> without_invalid(const TemperatureBlock<Real> &b, std::int64_t i,
                                         Mask<Real> valid) {
  const Mask<Real> kept = Mask<Real>::set(b.keep + i);
  const std::uint32_t bad = kept.without(valid).bits();
  if (__builtin_expect(bad != 0, 0)) {
    *b.n_invalid += __builtin_popcount(bad);
    for (std::int64_t lane = 0; lane < Lanes<Real>::kCount; ++lane) {
      b.keep[i + lane] = ((bad >> lane) & 1) != 0 ? 0 : b.keep[i + lane];
    }
  }
  return kept & valid;
}

// 0, or NaN where z is NaN or +inf.
template <typename Real> static inline Vec<Real> poison_of(Vec<Real> z) {
  const Vec<Real> capped = z < Real{0} ? Vec<Real>{} : z;
  return capped - capped;
}

template <typename Real> static inline Mask<Real> is_number(Vec<Real> x) {
  return Mask<Real>::above(x, splat<Real>(-infinity<Real>())) &
         Mask<Real>::above(splat<Real>(infinity<Real>()), x);
}

// True for -inf, false for NaN.
template <typename Real> static inline Mask<Real> is_nothing(Vec<Real> z) {
  return Mask<Real>::equal(reinterpret_cast<IntVec<Real>>(z),
                           reinterpret_cast<IntVec<Real>>(splat<Real>(-infinity<Real>())));
}

} // namespace fastcal::cpu::FASTCAL_ISA
