// The logarithm of the statistics.
#pragma once

#include "cuda/real.cuh"

namespace fastcal::cuda {

// ln x = e ln 2 + ln m in the statistics: each step is one IEEE operation, in this order.
__device__ __forceinline__ float log_of_split(float e, float m) {
  const float f = add_exact(m, -1.0F);
  const float s = divide_exact(f, add_exact(f, 2.0F));
  const float z = multiply_exact(s, s);
  float r = 1.0F / 9.0F;
  r = add_exact(multiply_exact(r, z), 1.0F / 7.0F);
  r = add_exact(multiply_exact(r, z), 1.0F / 5.0F);
  r = add_exact(multiply_exact(r, z), 1.0F / 3.0F);
  const float t = add_exact(s, s);
  const float log_m = add_exact(t, multiply_exact(t, multiply_exact(r, z)));
  return add_exact(multiply_exact(e, kLn2), log_m);
}

__device__ __forceinline__ double log_of_split(double e, double m) {
  constexpr int kTerms = 10;
  const double f = add_exact(m, -1.0);
  const double s = divide_exact(f, add_exact(f, 2.0));
  const double z = multiply_exact(s, s);
  double r = 1.0 / (2 * kTerms + 1);
#pragma unroll
  for (int k = kTerms - 1; k >= 1; --k) {
    r = add_exact(multiply_exact(r, z), 1.0 / (2 * k + 1));
  }
  const double t = add_exact(s, s);
  const double log_m = add_exact(t, multiply_exact(t, multiply_exact(r, z)));
  return add_exact(multiply_exact(e, 0.6931471805599453), log_m);
}

__device__ __forceinline__ float log_exact_steps(float x) {
  constexpr int kRoot = 0x3f3504f3;
  const int i = __float_as_int(x) - kRoot;
  return log_of_split(static_cast<float>(i >> 23), __int_as_float((i & 0x007fffff) + kRoot));
}

__device__ __forceinline__ double log_exact_steps(double x) {
  constexpr long long kRoot = 0x3fe6a09e667f3bcd;
  const long long i = __double_as_longlong(x) - kRoot;
  return log_of_split(static_cast<double>(i >> 52),
                      __longlong_as_double((i & 0x000fffffffffffff) + kRoot));
}

} // namespace fastcal::cuda
