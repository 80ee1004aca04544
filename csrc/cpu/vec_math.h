// exp and log over vectors. Ordinary multiplies and adds in C++, so that one text serves every
// instruction set; whether they contract is decided by the flags of the including file.
#pragma once

#include "cpu/vec.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> struct Constants;

template <> struct Constants<float> {
  static constexpr float kLog2E = 1.44269504F;
  static constexpr float kLn2 = 0.693147181F;
  static constexpr float kRoundMagic = 12582912.0F; // 1.5 * 2^23
  static constexpr float kMinExponent = -127.0F;
  static constexpr std::int32_t kMantissaBits = 23;
  static constexpr std::int32_t kMantissaMask = 0x007fffff;
  static constexpr std::int32_t kExponentBias = 127;
  static constexpr std::int32_t kSqrtHalfBits = 0x3f3504f3;
  static constexpr int kLogTerms = 4;
};

template <> struct Constants<double> {
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kLn2 = 0.6931471805599453;
  static constexpr double kRoundMagic = 6755399441055744.0; // 1.5 * 2^52
  static constexpr double kMinExponent = -1023.0;
  static constexpr std::int64_t kMantissaBits = 52;
  static constexpr std::int64_t kMantissaMask = 0x000fffffffffffff;
  static constexpr std::int64_t kExponentBias = 1023;
  static constexpr std::int64_t kSqrtHalfBits = 0x3fe6a09e667f3bcd;
  static constexpr int kLogTerms = 10;
};

// 2^t for t <= 0 (or a little above); 0 below the smallest normal; NaN stays NaN.
// float: minimax polynomial of degree 6 on [-1/2, 1/2]; double: Taylor in r ln 2, degree 13.
template <typename Real> static inline Vec<Real> exp2_vector(Vec<Real> t) {
  using K = Constants<Real>;
  t = t < K::kMinExponent ? splat<Real>(K::kMinExponent) : t;
  const Vec<Real> shifted = t + K::kRoundMagic;
  const Vec<Real> r = t - (shifted - K::kRoundMagic);
  const IntVec<Real> n = reinterpret_cast<IntVec<Real>>(shifted) + K::kExponentBias;
  const Vec<Real> scale = reinterpret_cast<Vec<Real>>(n << K::kMantissaBits);
  Vec<Real> p;
  if constexpr (sizeof(Real) == 4) {
    p = r * 1.54531629e-4F + 1.33908634e-3F;
    p = p * r + 9.61808256e-3F;
    p = p * r + 5.55035711e-2F;
    p = p * r + 2.40226508e-1F;
    p = p * r + 6.93147188e-1F;
    p = p * r + 1.0F;
  } else {
    const Vec<Real> y = r * K::kLn2;
    constexpr double kInverseFactorials[] = {
        1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0,
        1.0 / 40320.0,      1.0 / 5040.0,      1.0 / 720.0,      1.0 / 120.0,     1.0 / 24.0,
        1.0 / 6.0,          0.5,               1.0,              1.0};
    p = splat<Real>(kInverseFactorials[0]);
    for (int k = 1; k < 14; ++k) {
      p = p * y + kInverseFactorials[k];
    }
  }
  return p * scale;
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
  constexpr int kTerms = Constants<Real>::kLogTerms;
  Vec<Real> r = splat<Real>(Real{1} / Real{2 * kTerms + 1});
  for (int k = kTerms - 1; k >= 1; --k) {
    r = r * z + Real{1} / static_cast<Real>(2 * k + 1);
  }
  return r * z;
}

// log2 x = e + 2 log2(e) atanh(s), s = (m - 1) / (m + 1).
template <typename Real> static inline Vec<Real> log2_vector(Vec<Real> x) {
  Vec<Real> e;
  const Vec<Real> f = split<Real>(x, &e) - Real{1};
  const Vec<Real> s = f / (f + Real{2});
  const Vec<Real> t = s * (2 * Constants<Real>::kLog2E);
  return e + (t + t * atanh_tail<Real>(s * s));
}

// ln x of the statistics stage: every step one IEEE operation in this order, the same bits on
// every backend (files that use it are compiled without contraction).
template <typename Real> static inline Vec<Real> log_exact_steps(Vec<Real> x) {
  Vec<Real> e;
  const Vec<Real> f = split<Real>(x, &e) - Real{1};
  const Vec<Real> s = f / (f + Real{2});
  const Vec<Real> t = s + s;
  return e * Constants<Real>::kLn2 + (t + t * atanh_tail<Real>(s * s));
}

} // namespace fastcal::cpu::FASTCAL_ISA
