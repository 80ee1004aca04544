// Arithmetic of the accumulation types. The files are compiled without contraction, and a fused
// multiply-add is written where it is meant, so that all kernels round alike.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace fastcal::cuda {

template <typename Element> struct RealOf {
  using Type = float;
};
template <> struct RealOf<double> {
  using Type = double;
};
template <typename Element> using Real = typename RealOf<Element>::Type;

// How often loops over the classes are unrolled. With double the code of one logarithm is long
// enough.
template <typename Real> constexpr int kClassUnroll = sizeof(Real) == 4 ? 4 : 1;

__device__ __forceinline__ float to_real(float value) { return value; }
__device__ __forceinline__ double to_real(double value) { return value; }
__device__ __forceinline__ float to_real(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_real(__nv_bfloat16 value) { return __bfloat162float(value); }

constexpr float kLn2 = 0.693147181F;
constexpr float kLog2E = 1.44269504F;

// 2^x and log2 x of the special function unit. The relative error of 2^x is at most 2^-22.5. That
// of log2 x is at most 2^-22.6, or the absolute error where x is near 1.
#ifdef FASTCAL_CUDA_SHIM
using shim::exp2_approximate;
using shim::log2_approximate;
using shim::reciprocal_approximate;
#else
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float log2_approximate(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x within one unit in the last place, for x between 2^-126 and 2^126.
__device__ __forceinline__ float reciprocal_approximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

// e^(d * inverse_temperature)
__device__ __forceinline__ float exp_scaled(float d, float scaled_log2_e) {
  return exp2_approximate(d * scaled_log2_e);
}
__device__ __forceinline__ double exp_scaled(double d, double inverse_temperature) {
  return exp(d * inverse_temperature);
}

// The factor that exp_scaled takes for one temperature.
__device__ __forceinline__ float exp_factor(float inverse_temperature) {
  return inverse_temperature * kLog2E;
}
__device__ __forceinline__ double exp_factor(double inverse_temperature) {
  return inverse_temperature;
}

__device__ __forceinline__ float log_natural(float x) { return log2_approximate(x) * kLn2; }
__device__ __forceinline__ double log_natural(double x) { return log(x); }

__device__ __forceinline__ float divide_approximate(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ double divide_approximate(double a, double b) { return a / b; }

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }

// The steps of the statistics: one IEEE operation each, which gives the same bits on every backend.
__device__ __forceinline__ float add_exact(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double add_exact(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ float multiply_exact(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double multiply_exact(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float divide_exact(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ double divide_exact(double a, double b) { return __ddiv_rn(a, b); }

template <typename Real> __device__ __forceinline__ Real quiet_nan() {
  return static_cast<Real>(__builtin_nanf(""));
}

template <typename Real> __device__ __forceinline__ Real infinity() {
  return static_cast<Real>(__builtin_huge_valf());
}

template <typename Real> __device__ __forceinline__ Real smallest_normal();
template <> __device__ __forceinline__ float smallest_normal<float>() { return 1.17549435e-38F; }
template <> __device__ __forceinline__ double smallest_normal<double>() {
  return 2.2250738585072014e-308;
}

template <typename Real> __device__ __forceinline__ bool is_finite(Real x) {
  return x - x == Real{0};
}

template <typename Real> __device__ __forceinline__ Real not_negative(Real x) {
  return x < Real{0} ? Real{0} : x; // NaN stays
}

// The entropy of exclusive classes is -kEntropyUnit times the sum of p log p, with 0 log 0 = 0 and
// the logarithm that the hardware has.
__device__ __forceinline__ float log_of_units(float x) { return log2_approximate(x); }
__device__ __forceinline__ double log_of_units(double x) { return log(x); }
template <typename Real>
constexpr Real kEntropyUnit = sizeof(Real) == 4 ? static_cast<Real>(kLn2) : Real{1};
template <typename Real> __device__ __forceinline__ Real entropy_of_sum(Real sum) {
  return fused(-kEntropyUnit<Real>, sum, Real{0}); // 0, not -0, where one class is certain
}

// For p >= 0 or NaN.
template <typename Real> __device__ __forceinline__ Real add_p_log_p(Real p, Real sum) {
  return fused(p, log_of_units(larger(p, smallest_normal<Real>())), sum);
}

// p ln p with 0 ln 0 = 0, for p >= 0 or NaN.
template <typename Real> __device__ __forceinline__ Real p_log_p(Real p) {
  return p * log_natural(larger(p, smallest_normal<Real>()));
}

template <typename Real> __device__ __forceinline__ Real bernoulli_entropy(Real p) {
  return -(p_log_p(p) + p_log_p(Real{1} - p));
}

// Adds and carries the rounding error along (Kahan). A plain sum of floats over hundreds of classes
// is off by 4e-6.
template <typename Real>
__device__ __forceinline__ void add_compensated(Real &sum, Real &lost, Real term) {
  const Real corrected = term - lost;
  const Real next = sum + corrected;
  lost = (next - sum) - corrected;
  sum = next;
}

// 1 / (1 + e^-z). It gives NaN instead of 1 for +inf, which is invalid input.
template <typename Real> __device__ __forceinline__ Real sigmoid(Real z, Real factor) {
  const Real e = exp_scaled(z < Real{0} ? z : -z, factor);
  const Real p = divide_approximate(z < Real{0} ? e : Real{1}, Real{1} + e);
  return z == infinity<Real>() ? quiet_nan<Real>() : p;
}

// Whether a probability lies further outside [0, 1] than interpolation goes.
template <typename Real> __device__ __forceinline__ bool out_of_range(Real p) {
  return p < Real(-1e-3) || p > Real(1.001);
}

// A probability of one member. One that is out of range becomes a number so large that the mean is
// out of range too; NaN and infinities become NaN.
template <typename Real> __device__ __forceinline__ Real checked_probability(Real p) {
  constexpr Real kOutside = static_cast<Real>(1.2676506002282294e30); // 2^100
  return out_of_range(p) ? kOutside + (p - p) : p;
}

// ln p with ln 0 = -inf. What is out of range by no more than interpolation goes counts; anything
// else gives NaN.
template <typename Real> __device__ __forceinline__ Real log_of_probability(Real p) {
  if (p > Real{0}) {
    const Real log = log_natural(larger(p, smallest_normal<Real>()));
    return p > Real(1.001) ? quiet_nan<Real>() : log;
  }
  return p >= Real(-1e-3) ? -infinity<Real>() : quiet_nan<Real>();
}

// The logit whose activation is p.
template <typename Real> __device__ __forceinline__ Real logit_of(Real p, bool exclusive) {
  const Real z = log_of_probability(p);
  if (exclusive) {
    return z;
  }
  // p = 1 becomes a large finite logit, because +inf would mean invalid input.
  const bool certain = p >= Real{1} && p <= Real(1.001);
  return certain ? Real(1e30) : z - log_of_probability(Real{1} - p);
}

} // namespace fastcal::cuda
