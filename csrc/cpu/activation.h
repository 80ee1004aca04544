// From logits to probabilities and back, one vector at a time.
#pragma once

#include "cpu/vec_math.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> static inline Vec<Real> not_negative(Vec<Real> x) {
  return at_least<Real>(x, Real{0}); // NaN stays NaN
}

template <typename Real> static inline Vec<Real> nan_vector() {
  return splat<Real>(static_cast<Real>(__builtin_nan("")));
}

// A probability of one member. One that is out of range becomes a number so large that the mean is
// out of range too; NaN and infinities become NaN. Weights are at most 2, so that the largest
// member counts.
template <typename Real> static inline Vec<Real> checked_probability(Vec<Real> p) {
  constexpr Real kOutside = static_cast<Real>(1.2676506002282294e30); // 2^100
  return (p < Real{-1e-3}) | (p > Real{1.001}) ? kOutside + (p - p) : p;
}

// ln p with ln 0 = -inf. What is out of range by no more than interpolation goes counts; anything
// else gives NaN.
template <typename Real> static inline Vec<Real> log_of_probability(Vec<Real> p) {
  constexpr Real kInfinity = static_cast<Real>(__builtin_inf());
  const Vec<Real> log =
      log2_vector<Real>(p) * Constants<Real>::kLn2 + (p - p); // infinity and NaN give NaN
  const Vec<Real> not_positive =
      p < Real{-1e-3} || p != p ? nan_vector<Real>() : splat<Real>(-kInfinity);
  const Vec<Real> positive = p > Real{1.001} ? nan_vector<Real>() : log;
  return p > Real{0} ? positive : not_positive;
}

template <typename Real> static inline Vec<Real> sigmoid(Vec<Real> z, const ExpScale<Real> &scale) {
  constexpr Real kLargest =
      static_cast<Real>(sizeof(Real) == 4 ? 3.40282347e38 : 1.7976931348623157e308);
  // +inf is invalid input, and gives NaN instead of 1.
  z = z > kLargest ? nan_vector<Real>() : z;
  const Vec<Real> e = exp_vector<Real>(scale, z < Real{0} ? z : -z);
  const Vec<Real> numerator = z < Real{0} ? e : Real{1} + (e - e);
  return numerator / (e + Real{1});
}

// -p log2 p - (1 - p) log2 (1 - p)
template <typename Real> static inline Vec<Real> bernoulli_bits(Vec<Real> p) {
  const Vec<Real> q = Real{1} - p;
  return -(p * log2_vector<Real>(p) + q * log2_vector<Real>(q));
}

} // namespace fastcal::cpu::FASTCAL_ISA
