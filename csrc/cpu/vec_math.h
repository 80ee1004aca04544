// exp and log of vectors. They are ordinary multiplications and additions in C++, so that one text
// serves every instruction set. The flags of the including file decide whether they contract.
#pragma once

#include "cpu/vec.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> struct Constants;

template <> struct Constants<float> {
  static constexpr float kLog2E = 1.44269504F;
  static constexpr float kLn2 = 0.693147181F;
  static constexpr float kRoundMagic = 12582912.0F; // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kExponentBias = 127.0F;
  static constexpr float kMinExponent = -127.0F;
  static constexpr std::int32_t kMantissaBits = 23;
  static constexpr std::int32_t kMantissaMask = 0x007fffff;
  static constexpr std::int32_t kSqrtHalfBits = 0x3f3504f3;
  static constexpr int kAtanhTerms = 4;
  // e^r on [-ln 2 / 2, ln 2 / 2], highest power first. Minimax with the constant term fixed at 1;
  // the error is 1e-8.
  static constexpr int kExpTerms = 7;
  static constexpr float kExp[] = {
      1.39336416e-3F, 8.36914871e-3F, 4.16664667e-2F, 1.66665047e-1F, 0.5F, 1.0F, 1.0F};
  // log2(1 + f) / f on [sqrt(1/2) - 1, sqrt 2 - 1]. Minimax; the error is 5e-8.
  static constexpr int kLog2Terms = 9;
  static constexpr float kLog2[] = {0.123109683F,  -0.205861881F, 0.216078222F,
                                    -0.239169881F, 0.287903249F,  -0.360693276F,
                                    0.480910748F,  -0.721347451F, 1.44269502F};
};

template <> struct Constants<double> {
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kLn2 = 0.6931471805599453;
  static constexpr double kRoundMagic = 6755399441055744.0; // 1.5 * 2^52
  static constexpr double kExponentBias = 1023.0;
  static constexpr double kMinExponent = -1023.0;
  static constexpr std::int64_t kMantissaBits = 52;
  static constexpr std::int64_t kMantissaMask = 0x000fffffffffffff;
  static constexpr std::int64_t kSqrtHalfBits = 0x3fe6a09e667f3bcd;
  static constexpr int kAtanhTerms = 10;
  // e^r on the same interval, by inverse factorials.
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

// Where a vector holds sixteen floats, a permutation takes 2^(j / 16) from a register, and three
// terms of e^r are enough. Elsewhere the polynomial covers the whole interval.
template <typename Real>
constexpr bool kHasExpTable = FASTCAL_VECTOR_BYTES == 64 && sizeof(Real) == 4;

// The constants of e^(d / T) for one temperature. T is folded into them, so that it costs nothing
// per voxel.
template <typename Real> struct ExpScale {
  static constexpr int kTableBits = kHasExpTable<Real> ? 4 : 0;
  static constexpr Real kSteps = Real{1 << kTableBits}; // between powers of two
  static constexpr int kTerms = kHasExpTable<Real> ? 3 : Constants<Real>::kExpTerms;

  Real to_exponent;   // kSteps log2(e) / T
  Real from_exponent; // -T ln 2 / kSteps
  Real lowest;        // below this d, e^(d / T) is 0
  Real inverse_temperature;
  Real coefficients[kTerms]; // of the powers of r

  explicit ExpScale(Real inverse_t) : inverse_temperature(inverse_t) {
    using K = Constants<Real>;
    to_exponent = kSteps * K::kLog2E * inverse_t;
    from_exponent = -K::kLn2 / (inverse_t * kSteps);
    lowest = K::kMinExponent * kSteps / to_exponent;
    if constexpr (kHasExpTable<Real>) {
      coefficients[0] = inverse_t * inverse_t * inverse_t / Real{6};
      coefficients[1] = inverse_t * inverse_t / Real{2};
      coefficients[2] = inverse_t;
    } else {
      Real power = Real{1};
      for (int term = kTerms - 1; term >= 0; --term) {
        coefficients[term] = K::kExp[term] * power;
        power *= inverse_t;
      }
    }
  }
};

#if FASTCAL_VECTOR_BYTES == 64
// The mantissa bits of 2^(j / 16).
alignas(64) constexpr std::int32_t kExpTable[16] = {
    0x000000, 0x05aac3, 0x0b95c2, 0x11c3d3, 0x1837f0, 0x1ef532, 0x25fed7, 0x2d583f,
    0x3504f3, 0x3d08a4, 0x45672a, 0x4e248c, 0x5744fd, 0x60ccdf, 0x6ac0c7, 0x75257d};

// 2^n 2^(j / 16), where the low bits of `shifted` hold 16 (n + bias) + j. At the lower limit of d
// all these bits are 0, and so is the result.
static inline Vec<float> table_power(Vec<float> shifted) {
  const auto bits = reinterpret_cast<__m512i>(shifted);
  const __m512i mantissa =
      _mm512_permutexvar_epi32(bits, _mm512_load_si512(static_cast<const void *>(kExpTable)));
  constexpr int kAndOr = 0xea; // (a & b) | c
  const __m512i exponent_mask = _mm512_set1_epi32(0x7f800000);
  return reinterpret_cast<Vec<float>>(
      _mm512_ternarylogic_epi32(_mm512_slli_epi32(bits, 19), exponent_mask, mantissa, kAndOr));
}
#endif

// Turns d into e^(d / T), in kCount vectors, for d <= 0 (or a little above). Results below the
// smallest normal number are 0, and NaN stays NaN. The vectors advance together, step by step,
// since a single Horner chain would wait for each of its multiply-adds. `clamped` receives d, or
// the lowest d where d is below it.
template <typename Real, int kCount>
static inline void exp_each(const ExpScale<Real> &scale, Vec<Real> *d, Vec<Real> *clamped) {
  using K = Constants<Real>;
  using Scale = ExpScale<Real>;
  // Leaves the rounded integer, plus the bias of the exponent, in the low bits.
  constexpr Real kMagic = K::kRoundMagic + K::kExponentBias * Scale::kSteps;
  Vec<Real> power[kCount];
  Vec<Real> p[kCount];
  Vec<Real> r[kCount];
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    clamped[k] = at_least<Real>(d[k], scale.lowest);
    const Vec<Real> shifted = clamped[k] * scale.to_exponent + kMagic;
    r[k] = (shifted - kMagic) * scale.from_exponent + clamped[k];
    if constexpr (kHasExpTable<Real>) {
      power[k] = table_power(shifted);
    } else {
      power[k] =
          reinterpret_cast<Vec<Real>>(reinterpret_cast<IntVec<Real>>(shifted) << K::kMantissaBits);
    }
    p[k] = splat<Real>(scale.coefficients[0]);
  }
#pragma GCC unroll 16
  for (int term = 1; term < Scale::kTerms; ++term) {
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      p[k] = p[k] * r[k] + scale.coefficients[term];
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    if constexpr (kHasExpTable<Real>) {
      d[k] = power[k] + power[k] * (p[k] * r[k]);
    } else {
      d[k] = p[k] * power[k];
    }
  }
}

template <typename Real>
static inline Vec<Real> exp_vector(const ExpScale<Real> &scale, Vec<Real> d) {
  Vec<Real> clamped;
  exp_each<Real, 1>(scale, &d, &clamped);
  return d;
}

// Splits x into m 2^e with m in [sqrt(1/2), sqrt 2), for positive normal x. Zero gives a finite m
// and e, so that 0 * log 0 is 0 without a test. What is below zero gives any m and e.
template <typename Real> static inline Vec<Real> split(Vec<Real> x, Vec<Real> *exponent) {
  using K = Constants<Real>;
  // The bits of what is below zero leave the range of signed numbers.
  const auto i =
      reinterpret_cast<IntVec<Real>>(reinterpret_cast<UintVec<Real>>(x) - K::kSqrtHalfBits);
  *exponent = __builtin_convertvector(i >> K::kMantissaBits, Vec<Real>);
  return reinterpret_cast<Vec<Real>>((i & K::kMantissaMask) + K::kSqrtHalfBits);
}

// r of atanh(s) = s (1 + r), with z = s^2: the series z/3 + z^2/5 + ..., which ends where its terms
// are below the rounding error for s^2 <= 0.0295.
template <typename Real> static inline Vec<Real> atanh_tail(Vec<Real> z) {
  constexpr int kTerms = Constants<Real>::kAtanhTerms;
  Vec<Real> r = splat<Real>(Real{1} / Real{2 * kTerms + 1});
#pragma GCC unroll 16
  for (int k = kTerms - 1; k >= 1; --k) {
    r = r * z + Real{1} / static_cast<Real>(2 * k + 1);
  }
  return r * z;
}

// Turns kCount vectors x into log2 x in place. For floats it is e + f P(f) with f = m - 1; for
// doubles e + 2 log2(e) atanh(s) with s = f / (f + 2).
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

// Adds and carries the rounding error along (Kahan). A plain sum of floats over hundreds of classes
// is off by 4e-6.
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

// 1 / x to within one or two ulps, for x not near the ends of the range. An estimate and one Newton
// step take half the time of a division.
template <typename Real> static inline Vec<Real> reciprocal(Vec<Real> x) {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) {
    const Vec<Real> estimate = _mm512_rcp14_ps(x);
    return estimate + estimate * (Real{1} - x * estimate);
  }
#endif
  return Real{1} / x;
}

// Calls f(Count<n>, first) for groups of four classes (or vectors), and for a last group of what
// remains.
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

// The same for a number of classes known at compile time. It is unrolled, so that arrays indexed by
// class stay in registers.
template <int kClasses, int kFirst = 0, typename Function>
static inline __attribute__((always_inline)) void in_fours_of(const Function &f) {
  constexpr int kCount = kClasses - kFirst < 4 ? kClasses - kFirst : 4;
  if constexpr (kCount > 0) {
    f(Count<kCount>{}, std::int64_t{kFirst});
    in_fours_of<kClasses, kFirst + kCount>(f);
  }
}

// The same for kClasses classes, or for `classes` where kClasses is 0.
template <int kClasses, typename Function>
static inline __attribute__((always_inline)) void over_classes(std::int64_t classes,
                                                               const Function &f) {
  if constexpr (kClasses > 0) {
    in_fours_of<kClasses>(f);
  } else {
    in_fours(classes, f);
  }
}

// Turns kCount vectors x into ln x in place, for the statistics stage. Each step is one IEEE
// operation, in this order, which gives the same bits on every backend. (Files that use it are
// compiled without contraction.)
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
