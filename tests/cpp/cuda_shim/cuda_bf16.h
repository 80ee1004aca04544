// bfloat16 for the shim: storage and the exact conversion to float.
#pragma once

#include "cuda_runtime.h"

struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 value) {
  return shim_bits<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) { // to nearest even; NaN stays NaN
  const auto bits = shim_bits<std::uint32_t>(value);
  const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  return {static_cast<std::uint16_t>(value == value ? rounded >> 16 : (bits >> 16) | 0x40U)};
}
