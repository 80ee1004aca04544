// Elements of half precision, read singly or by the vector. Included only by the files of one
// instruction set.
#pragma once

#include "cpu/vec.h"

namespace fastcal::cpu::FASTCAL_ISA {

static inline float half_to_float(std::uint16_t half) {
  // Once shifted into place, the exponent is 112 too small. The multiplication repairs that, for
  // subnormal numbers too.
  std::uint32_t bits = static_cast<std::uint32_t>(half & 0x7fff) << 13;
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof bits);
  magnitude *= 5.192296858534828e33F; // 2^112
  std::memcpy(&bits, &magnitude, sizeof bits);
  bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000U : 0U;
  bits |= static_cast<std::uint32_t>(half & 0x8000) << 16;
  std::memcpy(&magnitude, &bits, sizeof bits);
  return magnitude;
}

static inline float bfloat_to_float(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

struct Half {
  std::uint16_t bits;
};
struct BFloat {
  std::uint16_t bits;
};

static inline float to_real(float value) { return value; }
static inline double to_real(double value) { return value; }
static inline float to_real(Half value) { return half_to_float(value.bits); }
static inline float to_real(BFloat value) { return bfloat_to_float(value.bits); }

// A vector of Real, from as many consecutive elements.
template <typename Real, typename Element> static inline Vec<Real> load_real(const Element *from) {
  constexpr std::int64_t kCount = Lanes<Real>::kCount;
  if constexpr (__is_same(Element, Real)) {
    return load(from);
  }
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  if constexpr (__is_same(Element, Half)) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
  }
  if constexpr (__is_same(Element, BFloat)) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
    return reinterpret_cast<Vec<Real>>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }
#elif FASTCAL_VECTOR_BYTES == 32 && defined(__F16C__)
  if constexpr (__is_same(Element, Half)) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
  }
  if constexpr (__is_same(Element, BFloat)) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
    return reinterpret_cast<Vec<Real>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
  }
#endif
  Vec<Real> values;
  for (std::int64_t lane = 0; lane < kCount; ++lane) {
    values[lane] = static_cast<Real>(to_real(from[lane]));
  }
  return values;
}

} // namespace fastcal::cpu::FASTCAL_ISA
