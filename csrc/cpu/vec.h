// Vectors of the instruction set that is being compiled, by the vector extensions of GCC and Clang.
// Included only by the files of one instruction set. Everything here is inside their namespace, so
// that the linker cannot keep the AVX-512 copy of a function for all of them.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/problem.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> struct Lanes;

template <> struct Lanes<float> {
  static constexpr std::int64_t kCount = FASTCAL_VECTOR_BYTES / 4;
  using Int = std::int32_t;
  typedef float Vector __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
  typedef std::int32_t IntVector __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
  typedef std::uint32_t UintVector __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
};

template <> struct Lanes<double> {
  static constexpr std::int64_t kCount = FASTCAL_VECTOR_BYTES / 8;
  using Int = std::int64_t;
  typedef double Vector __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
  typedef std::int64_t IntVector __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
  typedef std::uint64_t UintVector __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
};

template <typename Real> using Vec = typename Lanes<Real>::Vector;
template <typename Real> using IntVec = typename Lanes<Real>::IntVector;
template <typename Real> using UintVec = typename Lanes<Real>::UintVector;

template <typename V, typename T> static inline V load_as(const T *from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <typename Real> static inline Vec<Real> load(const Real *from) {
  return load_as<Vec<Real>>(from);
}

template <typename V, typename T> static inline void store(T *to, V v) {
  std::memcpy(to, &v, sizeof v);
}

template <typename Real> static inline Vec<Real> splat(Real value) { return value - Vec<Real>{}; }

template <typename Real> static inline IntVec<Real> splat_int(std::int64_t value) {
  return static_cast<typename Lanes<Real>::Int>(value) - IntVec<Real>{};
}

// The larger of x and low, NaN where x is NaN. The instruction returns its second operand when one
// of them is NaN. (A conditional would compile to a comparison and a blend.)
template <typename Real> static inline Vec<Real> at_least(Vec<Real> x, Real low) {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) {
    return _mm512_max_ps(splat<Real>(low), x);
  } else {
    return _mm512_max_pd(splat<Real>(low), x);
  }
#elif FASTCAL_VECTOR_BYTES == 32 && defined(__AVX__)
  if constexpr (sizeof(Real) == 4) {
    return _mm256_max_ps(splat<Real>(low), x);
  } else {
    return _mm256_max_pd(splat<Real>(low), x);
  }
#elif FASTCAL_VECTOR_BYTES == 16 && defined(__SSE2__)
  if constexpr (sizeof(Real) == 4) {
    return _mm_max_ps(splat<Real>(low), x);
  } else {
    return _mm_max_pd(splat<Real>(low), x);
  }
#else
  const Vec<Real> lowest = splat<Real>(low);
  return x < lowest ? lowest : x;
#endif
}

// a > b ? a : b, and b < a ? b : a. Where the two are not ordered, these are b and a. (From the
// conditionals gcc 12 makes one comparison and two blends.)
template <typename Real> static inline Vec<Real> larger_of(Vec<Real> a, Vec<Real> b) {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) {
    return _mm512_max_ps(a, b);
  }
#endif
  return a > b ? a : b;
}

template <typename Real> static inline Vec<Real> smaller_of(Vec<Real> a, Vec<Real> b) {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) {
    return _mm512_min_ps(b, a);
  }
#endif
  return b < a ? b : a;
}

// Stores past the caches, to an address aligned to the vector. This saves reading the cache line
// first, where data is written once and not read again soon.
template <typename V> static inline void stream(void *to, V v) {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i *>(to), reinterpret_cast<__m512i>(v));
#elif FASTCAL_VECTOR_BYTES == 32 && defined(__AVX__)
  _mm256_stream_si256(static_cast<__m256i *>(to), reinterpret_cast<__m256i>(v));
#elif FASTCAL_VECTOR_BYTES == 16 && defined(__SSE2__)
  _mm_stream_si128(static_cast<__m128i *>(to), reinterpret_cast<__m128i>(v));
#else
  std::memcpy(to, &v, sizeof v);
#endif
}

// Orders such stores before what follows.
static inline void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Widens 32-bit lanes to the lanes of Real.
template <typename Real> static inline IntVec<Real> load_lanes(const std::int32_t *from) {
  if constexpr (sizeof(Real) == 4) {
    return load_as<IntVec<Real>>(from);
  } else {
    typedef std::int32_t Half __attribute__((vector_size(FASTCAL_VECTOR_BYTES / 2)));
    return __builtin_convertvector(load_as<Half>(from), IntVec<Real>);
  }
}

template <typename Real> static inline void store_lanes(std::int32_t *to, IntVec<Real> v) {
  if constexpr (sizeof(Real) == 4) {
    store(to, v);
  } else {
    typedef std::int32_t Half __attribute__((vector_size(FASTCAL_VECTOR_BYTES / 2)));
    store(to, __builtin_convertvector(v, Half));
  }
}

// One bit per lane of the result of a comparison.
template <typename Real> static inline std::uint32_t bits_of(IntVec<Real> mask) {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
  if constexpr (sizeof(Real) == 4) {
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
  } else {
    return _mm512_movepi64_mask(reinterpret_cast<__m512i>(mask));
  }
#elif FASTCAL_VECTOR_BYTES == 32 && defined(__AVX__)
  if constexpr (sizeof(Real) == 4) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
  } else {
    return static_cast<std::uint32_t>(_mm256_movemask_pd(reinterpret_cast<__m256d>(mask)));
  }
#elif FASTCAL_VECTOR_BYTES == 16 && defined(__SSE2__)
  if constexpr (sizeof(Real) == 4) {
    return static_cast<std::uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(mask)));
  } else {
    return static_cast<std::uint32_t>(_mm_movemask_pd(reinterpret_cast<__m128d>(mask)));
  }
#else
  std::uint32_t bits = 0;
  for (int lane = 0; lane < Lanes<Real>::kCount; ++lane) {
    bits |= static_cast<std::uint32_t>(mask[lane] & 1) << lane;
  }
  return bits;
#endif
}

// The result of a comparison in the form in which the instruction set computes it: a mask register
// of AVX-512, elsewhere a vector whose lanes are all ones or all zeros. (If it were a vector, gcc
// 12 would move every mask of AVX-512 out of its register and back.)
template <typename Real> struct Mask {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
  std::uint32_t value;

  static inline Mask above(Vec<Real> a, Vec<Real> b) {
    if constexpr (sizeof(Real) == 4) {
      return {_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)};
    } else {
      return {_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ)};
    }
  }
  static inline Mask equal(IntVec<Real> a, IntVec<Real> b) {
    if constexpr (sizeof(Real) == 4) {
      return {_mm512_cmpeq_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))};
    } else {
      return {_mm512_cmpeq_epi64_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))};
    }
  }
  static inline Mask differ(IntVec<Real> a, IntVec<Real> b) {
    if constexpr (sizeof(Real) == 4) {
      return {_mm512_cmpneq_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))};
    } else {
      return {_mm512_cmpneq_epi64_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))};
    }
  }
  static inline Mask below(IntVec<Real> a, IntVec<Real> b) {
    if constexpr (sizeof(Real) == 4) {
      return {_mm512_cmplt_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))};
    } else {
      return {_mm512_cmplt_epi64_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))};
    }
  }
  inline Vec<Real> choose(Vec<Real> yes, Vec<Real> no) const {
    if constexpr (sizeof(Real) == 4) {
      return _mm512_mask_mov_ps(no, static_cast<__mmask16>(value), yes);
    } else {
      return _mm512_mask_mov_pd(no, static_cast<__mmask8>(value), yes);
    }
  }
  inline IntVec<Real> choose(IntVec<Real> yes, IntVec<Real> no) const {
    if constexpr (sizeof(Real) == 4) {
      return reinterpret_cast<IntVec<Real>>(_mm512_mask_mov_epi32(reinterpret_cast<__m512i>(no),
                                                                  static_cast<__mmask16>(value),
                                                                  reinterpret_cast<__m512i>(yes)));
    } else {
      return reinterpret_cast<IntVec<Real>>(_mm512_mask_mov_epi64(reinterpret_cast<__m512i>(no),
                                                                  static_cast<__mmask8>(value),
                                                                  reinterpret_cast<__m512i>(yes)));
    }
  }
  inline Mask without(Mask other) const {
    return {_kandn_mask16(static_cast<__mmask16>(other.value), static_cast<__mmask16>(value))};
  }
  inline Mask operator&(Mask other) const {
    return {_kand_mask16(static_cast<__mmask16>(value), static_cast<__mmask16>(other.value))};
  }
  inline Mask operator|(Mask other) const {
    return {_kor_mask16(static_cast<__mmask16>(value), static_cast<__mmask16>(other.value))};
  }
  inline std::uint32_t bits() const { return value; }
#else
  IntVec<Real> value;

  static inline Mask above(Vec<Real> a, Vec<Real> b) { return {a > b}; }
  static inline Mask equal(IntVec<Real> a, IntVec<Real> b) { return {a == b}; }
  static inline Mask differ(IntVec<Real> a, IntVec<Real> b) { return {a != b}; }
  static inline Mask below(IntVec<Real> a, IntVec<Real> b) { return {a < b}; }
  inline Vec<Real> choose(Vec<Real> yes, Vec<Real> no) const { return value ? yes : no; }
  inline IntVec<Real> choose(IntVec<Real> yes, IntVec<Real> no) const { return value ? yes : no; }
  inline Mask without(Mask other) const { return {value & ~other.value}; }
  inline Mask operator&(Mask other) const { return {value & other.value}; }
  inline Mask operator|(Mask other) const { return {value | other.value}; }
  inline std::uint32_t bits() const { return bits_of<Real>(value); }
#endif

  inline bool all() const { return bits() == (1U << Lanes<Real>::kCount) - 1; }
  static inline Mask first(std::int64_t n) {
    IntVec<Real> lane;
    for (int k = 0; k < Lanes<Real>::kCount; ++k) {
      lane[k] = k;
    }
    return below(lane, splat_int<Real>(n));
  }
  // From 32-bit integers that are -1 or 0.
  static inline Mask set(const std::int32_t *lanes) {
    return equal(load_lanes<Real>(lanes), splat_int<Real>(-1));
  }
};

// Counts the lanes that are set, over at most 2^31 masks.
template <typename Real> struct LaneCounter {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
  std::int64_t sum = 0;

  inline void add(Mask<Real> mask) { sum += __builtin_popcount(mask.value); }
  inline std::int64_t total() const { return sum; }
#else
  IntVec<Real> lanes = {};

  inline void add(Mask<Real> mask) { lanes -= mask.value; }
  inline std::int64_t total() const {
    std::int64_t sum = 0;
    for (int lane = 0; lane < Lanes<Real>::kCount; ++lane) {
      sum += lanes[lane];
    }
    return sum;
  }
#endif
};

template <typename IntV> static inline std::int64_t sum_lanes(IntV v) {
  std::int64_t sum = 0;
  for (std::size_t lane = 0; lane < sizeof(IntV) / sizeof(v[0]); ++lane) {
    sum += static_cast<std::int64_t>(v[lane]);
  }
  return sum;
}

// The two halves of a vector of floats as doubles. (gcc 12 does the generic conversion through
// vectors of half the width.)
typedef double Doubles __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));

#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
static inline Doubles low_half(Vec<float> v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
static inline Doubles high_half(Vec<float> v) {
  return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
}
#elif FASTCAL_VECTOR_BYTES == 32 && defined(__AVX__)
static inline Doubles low_half(Vec<float> v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
static inline Doubles high_half(Vec<float> v) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}
#else
static inline Doubles low_half(Vec<float> v) { return Doubles{v[0], v[1]}; }
static inline Doubles high_half(Vec<float> v) { return Doubles{v[2], v[3]}; }
#endif

// Unsigned, because sums of them wrap around.
typedef std::uint64_t Longs __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));

// Doubles, or one half of a vector of floats, in fixed point (multiples of 2^-40, rounded half to
// even) plus kFixedOffset, for |value| < 2^11. The scaling is exact. Where no instruction rounds to
// 64-bit integers, adding 1.5 * 2^52 leaves the rounded integer in the low bits of a double.
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
constexpr std::int64_t kFixedOffset = 0;
static inline Longs fixed_point(Doubles values) {
  return reinterpret_cast<Longs>(_mm512_cvtpd_epi64(values * kFractionScale));
}
static inline Longs fixed_low_half(Vec<float> values) {
  const Vec<float> scaled = values * static_cast<float>(kFractionScale);
  return reinterpret_cast<Longs>(_mm512_cvtps_epi64(_mm512_castps512_ps256(scaled)));
}
static inline Longs fixed_high_half(Vec<float> values) {
  const Vec<float> scaled = values * static_cast<float>(kFractionScale);
  return reinterpret_cast<Longs>(_mm512_cvtps_epi64(_mm512_extractf32x8_ps(scaled, 1)));
}
#else
constexpr std::int64_t kFixedOffset = 0x4338000000000000; // the bits of 1.5 * 2^52
static inline Longs fixed_point(Doubles values) {
  return reinterpret_cast<Longs>(values * kFractionScale + 6755399441055744.0);
}
static inline Longs fixed_low_half(Vec<float> values) { return fixed_point(low_half(values)); }
static inline Longs fixed_high_half(Vec<float> values) { return fixed_point(high_half(values)); }
#endif

// A sum of reals in fixed point, exact, in 64-bit lanes.
template <typename Real> struct FixedPointSum {
  Longs lanes = {};
  std::int64_t adds = 0;

  inline void add(Vec<Real> values) {
    if constexpr (sizeof(Real) == 8) {
      lanes += fixed_point(values);
      adds += 1;
    } else {
      lanes += fixed_low_half(values);
      lanes += fixed_high_half(values);
      adds += 2;
    }
  }

  // The values in fixed point, each plus `more`.
  static inline void each(Vec<Real> values, std::int64_t *fixed, std::int64_t more = 0) {
    constexpr std::int64_t kHalf = FASTCAL_VECTOR_BYTES / 8;
    const std::uint64_t offset = static_cast<std::uint64_t>(more - kFixedOffset);
    if constexpr (sizeof(Real) == 8) {
      store(fixed, fixed_point(values) + offset);
    } else {
      store(fixed, fixed_low_half(values) + offset);
      store(fixed + kHalf, fixed_high_half(values) + offset);
    }
  }

  inline std::int64_t total() const {
    const std::int64_t per_lane = FASTCAL_VECTOR_BYTES / 8;
    const std::uint64_t offset =
        static_cast<std::uint64_t>(kFixedOffset) * static_cast<std::uint64_t>(adds * per_lane);
    std::uint64_t sum = 0;
    for (int lane = 0; lane < per_lane; ++lane) {
      sum += lanes[lane];
    }
    return static_cast<std::int64_t>(sum - offset);
  }
};

} // namespace fastcal::cpu::FASTCAL_ISA
