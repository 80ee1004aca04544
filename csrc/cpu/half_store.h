// Stores floats in half precision, rounded to nearest even. Included only by the files of one
// instruction set.
#pragma once

#include "cpu/element.h"
#include "cpu/kernels.h"

namespace fastcal::cpu::FASTCAL_ISA {

static inline std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline std::uint16_t to_bfloat(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<std::uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? 0x7fc0U : rounded);
}

static inline std::uint16_t to_half(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t size = bits & 0x7fffffffU;
  std::uint32_t half;
  if (size > 0x7f800000U) {
    half = 0x7e00U; // NaN
  } else if (size >= 0x477ff000U) {
    half = 0x7c00U; // would round to more than the largest
  } else if (size >= 0x38800000U) {
    half = (size - 0x38000000U + 0xfffU + ((size >> 13) & 1U)) >> 13;
  } else {
    // Adding 0.5 leaves the rounded bits of a subnormal number at the end of the mantissa.
    float magnitude;
    std::memcpy(&magnitude, &size, sizeof size);
    half = bits_of_float(magnitude + 0.5F) - 0x3f000000U;
  }
  return static_cast<std::uint16_t>(sign | half);
}

template <bool kBrain>
static inline void store_half_row(std::uint16_t *__restrict to, const float *__restrict from,
                                  std::int64_t n, std::int64_t stride) {
  std::int64_t i = 0;
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  for (; !kBrain && stride == 1 && i + 16 <= n; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + i),
                        _mm512_cvtps_ph(_mm512_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
#elif FASTCAL_VECTOR_BYTES == 32 && defined(__F16C__)
  for (; !kBrain && stride == 1 && i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  if (stride == 1) {
    for (; i < n; ++i) {
      to[i] = kBrain ? to_bfloat(from[i]) : to_half(from[i]);
    }
  }
  for (; i < n; ++i) {
    to[i * stride] = kBrain ? to_bfloat(from[i]) : to_half(from[i]);
  }
}

static void store_halves(const Run &run, const float *tile, std::int64_t pitch) {
  auto *to = static_cast<std::uint16_t *>(const_cast<void *>(run.data));
  for (std::int64_t c = 0; c < run.classes; ++c) {
    std::uint16_t *plane = to + c * run.class_stride;
    if (run.dtype == Dtype::kBFloat16) {
      store_half_row<true>(plane, tile + c * pitch, run.voxels, run.voxel_stride);
    } else {
      store_half_row<false>(plane, tile + c * pitch, run.voxels, run.voxel_stride);
    }
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
