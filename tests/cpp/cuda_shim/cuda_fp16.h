// Half precision for the shim: storage and the exact conversion to float.
#pragma once

#include "cuda_runtime.h"

struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half half) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half.bits & 0x7fff) << 13;
  // Once shifted into place, the exponent is 112 too small. The multiplication repairs that, for
  // subnormal numbers too.
  const float value = shim_bits<float>(magnitude) * 5.192296858534828e33F;
  std::uint32_t bits = shim_bits<std::uint32_t>(value);
  bits |= (half.bits & 0x7c00) == 0x7c00 ? 0x7f800000U : 0U;
  bits |= static_cast<std::uint32_t>(half.bits & 0x8000) << 16;
  return shim_bits<float>(bits);
}

inline __half __float2half_rn(float value) {
  const auto half = static_cast<_Float16>(value);
  __half rounded;
  std::memcpy(&rounded.bits, &half, sizeof rounded.bits);
  return rounded;
}
