// exp and log over vectors. Ordinary multiplies and adds in C++, so that one text serves every
// instruction set; whether they contract is decided by the flags of the including file.
#pragma once

#include "cpu/vec.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> struct Constants;

template <> struct Constants<float> {
  static constexpr float kLog2E = 1.44269504F;
  static constexpr float kLn2 = 0.693147181F;
  // 1.5 * 2^23 rounds to an integer in the low bits; the exponent's bias rides along.
  static constexpr float kRoundMagic = 12582912.0F + 127.0F;
  static constexpr float kMinExponent = -127.0F;
  static constexpr std::int32_t kMantissaBits = 23;
  static constexpr std::int32_t kMantissaMask = 0x007fffff;
  static constexpr std::int32_t kSqrtHalfBits = 0x3f3504f3;
  static constexpr int kAtanhTerms = 4;
  // e^r on [-ln 2 / 2, ln 2 / 2], highest power first: minimax with the constant fixed at 1, error
  // 1e-8.
  static constexpr int kExpTerms = 7;
  static constexpr float kExp[] = {
      1.39336416e-3F, 8.36914871e-3F, 4.16664667e-2F, 1.66665047e-1F, 0.5F, 1.0F, 1.0F};
  // log2(1 + f) / f on [sqrt(1/2) - 1, sqrt 2 - 1]: minimax, error 5e-8.
  static constexpr int kLog2Terms = 9;
  static constexpr float kLog2[] = {0.123109683F,  -0.205861881F, 0.216078222F,
                                    -0.239169881F, 0.287903249F,  -0.360693276F,
                                    0.480910748F,  -0.721347451F, 1.44269502F};
};

template <> struct Constants<double> {
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kLn2 = 0.6931471805599453;
  static constexpr double kRoundMagic = 6755399441055744.0 + 1023.0; // 1.5 * 2^52, as above
  static constexpr double kMinExponent = -1023.0;
  static constexpr std::int64_t kMantissaBits = 52;
  static constexpr std::int64_t kMantissaMask = 0x000fffffffffffff;
  static constexpr std::int64_t kSqrtHalfBits = 0x3fe6a09e667f3bcd;
  static constexpr int kAtanhTerms = 10;
  // e^r as above: inverse factorials.
  static constexpr int kExpTerms = 14;
  static constexpr double kExp[] = {1.0 / 6227020800.0,
                                    1.0 / 479001600.0,
                                    1.0 / 39916800.0,
                                    1.0 / 3628800.0,
                                    1.0 / 362880.0,
                                    1.0 / 40320.0,
                                    1.0 / 5040.0,
                                    1.0 / 720.0,
                                    1.0 / 120.0,
                                    1.0 / 24.0,
                                    1.0 / 6.0,
                                    0.5,
                                    1.0,
                                    1.0};
};

// The numbers of e^(d / T) for one temperature: T is folded into the constants, so that it costs
// nothing a voxel.
template <typename Real> struct ExpScale {
  Real to_exponent;   // log2(e) / T
  Real from_exponent; // -T ln 2
  Real lowest;        // d below which e^(d / T) counts as 0
  Real inverse_temperature;
  Real coefficients[Constants<Real>::kExpTerms]; // of r / T, as powers of r

  explicit ExpScale(Real inverse_t) : inverse_temperature(inverse_t) {
    using K = Constants<Real>;
    to_exponent = K::kLog2E * inverse_t;
    from_exponent = -K::kLn2 / inverse_t;
    lowest = K::kMinExponent / to_exponent;
    Real power = Real{1};
    for (int term = K::kExpTerms - 1; term >= 0; --term) {
      coefficients[term] = K::kExp[term] * power;
      power *= inverse_t;
    }
  }
};

// d becomes e^(d / T), for kCount vectors and d <= 0 (or a little above); 0 below the smallest
// normal; NaN stays NaN. The vectors advance step by step together: one Horner chain alone would
// wait for each multiply-add. `clamped` receives d, not below the lowest.
template <typename Real, int kCount>
static inline void exp_each(const ExpScale<Real> &scale, Vec<Real> *d, Vec<Real> *clamped) {
  using K = Constants<Real>;
  Vec<Real> power[kCount];
  Vec<Real> p[kCount];
  Vec<Real> r[kCount];
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    clamped[k] = at_least<Real>(d[k], scale.lowest);
    const Vec<Real> shifted = clamped[k] * scale.to_exponent + K::kRoundMagic;
    r[k] = (shifted - K::kRoundMagic) * scale.from_exponent + clamped[k];
    power[k] =
        reinterpret_cast<Vec<Real>>(reinterpret_cast<IntVec<Real>>(shifted) << K::kMantissaBits);
    p[k] = splat<Real>(scale.coefficients[0]);
  }
#pragma GCC unroll 16
  for (int term = 1; term < K::kExpTerms; ++term) {
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      p[k] = p[k] * r[k] + scale.coefficients[term];
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    d[k] = p[k] * power[k];
  }
}

template <typename Real>
static inline Vec<Real> exp_vector(const ExpScale<Real> &scale, Vec<Real> d) {
  Vec<Real> clamped;
  exp_each<Real, 1>(scale, &d, &clamped);
  return d;
}

// x = m 2^e with m in [sqrt(1/2), sqrt 2), for positive normal x. Zero gives a finite m and e, so
// that 0 * log 0 is 0 without a test.
template <typename Real> static inline Vec<Real> split(Vec<Real> x, Vec<Real> *exponent) {
  using K = Constants<Real>;
  const IntVec<Real> i = reinterpret_cast<IntVec<Real>>(x) - K::kSqrtHalfBits;
  *exponent = __builtin_convertvector(i >> K::kMantissaBits, Vec<Real>);
  return reinterpret_cast<Vec<Real>>((i & K::kMantissaMask) + K::kSqrtHalfBits);
}

// r with atanh(s) = s (1 + r), z = s^2: the series z/3 + z^2/5 + ..., cut where it falls below
// rounding for s^2 <= 0.0295.
template <typename Real> static inline Vec<Real> atanh_tail(Vec<Real> z) {
  constexpr int kTerms = Constants<Real>::kAtanhTerms;
  Vec<Real> r = splat<Real>(Real{1} / Real{2 * kTerms + 1});
#pragma GCC unroll 16
  for (int k = kTerms - 1; k >= 1; --k) {
    r = r * z + Real{1} / static_cast<Real>(2 * k + 1);
  }
  return r * z;
}

// log2 x of kCount vectors in place. float: e + f P(f), f = m - 1; double: e + 2 log2(e) atanh(s),
// s = f / (f + 2).
template <typename Real, int kCount> static inline void log2_each(Vec<Real> *x) {
  using K = Constants<Real>;
  Vec<Real> exponent[kCount];
  Vec<Real> p[kCount];
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    x[k] = split<Real>(x[k], &exponent[k]) - Real{1};
  }
  if constexpr (sizeof(Real) == 4) {
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      p[k] = splat<Real>(K::kLog2[0]);
    }
#pragma GCC unroll 16
    for (int term = 1; term < K::kLog2Terms; ++term) {
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        p[k] = p[k] * x[k] + K::kLog2[term];
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      x[k] = p[k] * x[k] + exponent[k];
    }
  } else {
    for (int k = 0; k < kCount; ++k) {
      const Vec<Real> s = x[k] / (x[k] + Real{2});
      const Vec<Real> t = s * (2 * K::kLog2E);
      x[k] = exponent[k] + (t + t * atanh_tail<Real>(s * s));
    }
  }
}

template <typename Real> static inline Vec<Real> log2_vector(Vec<Real> x) {
  log2_each<Real, 1>(&x);
  return x;
}

// Adds with the rounding error carried along (Kahan): a plain float sum of hundreds of classes
// loses 4e-6.
template <typename Real>
static inline void add_compensated(Vec<Real> *sum, Vec<Real> *lost, Vec<Real> term) {
  const Vec<Real> corrected = term - *lost;
  const Vec<Real> next = *sum + corrected;
  *lost = (next - *sum) - corrected;
  *sum = next;
}

template <int kCount> struct Count {
  static constexpr int kValue = kCount;
};

// Calls f(Count<n>, first) for groups of four classes (or vectors) and a last one of what remains.
template <typename Function>
static inline __attribute__((always_inline)) void in_fours(std::int64_t classes,
                                                           const Function &f) {
  std::int64_t c = 0;
#pragma GCC unroll 1
  for (; c + 4 <= classes; c += 4) {
    f(Count<4>{}, c);
  }
  if (classes - c == 3) {
    f(Count<3>{}, c);
  } else if (classes - c == 2) {
    f(Count<2>{}, c);
  } else if (classes - c == 1) {
    f(Count<1>{}, c);
  }
}

// The same for a number of classes known when compiling: unrolled, so that arrays indexed by class
// stay in registers.
template <int kClasses, int kFirst = 0, typename Function>
static inline __attribute__((always_inline)) void in_fours_of(const Function &f) {
  constexpr int kCount = kClasses - kFirst < 4 ? kClasses - kFirst : 4;
  if constexpr (kCount > 0) {
    f(Count<kCount>{}, std::int64_t{kFirst});
    in_fours_of<kClasses, kFirst + kCount>(f);
  }
}

// ln x of the statistics stage, of kCount vectors in place: every step one IEEE operation in this
// order, the same bits on every backend (files that use it are compiled without contraction).
template <typename Real, int kCount> static inline void log_exact_steps(Vec<Real> *x) {
  using K = Constants<Real>;
  Vec<Real> e[kCount];
  Vec<Real> t[kCount];
  Vec<Real> z[kCount];
  Vec<Real> r[kCount];
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    const Vec<Real> f = split<Real>(x[k], &e[k]) - Real{1};
    const Vec<Real> s = f / (f + Real{2});
    t[k] = s + s;
    z[k] = s * s;
    r[k] = splat<Real>(Real{1} / Real{2 * K::kAtanhTerms + 1});
  }
#pragma GCC unroll 16
  for (int term = K::kAtanhTerms - 1; term >= 1; --term) {
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      r[k] = r[k] * z[k] + Real{1} / static_cast<Real>(2 * term + 1);
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    x[k] = e[k] * K::kLn2 + (t[k] + t[k] * (r[k] * z[k]));
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
