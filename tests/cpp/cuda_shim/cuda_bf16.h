// bfloat16 for the shim: storage and the exact conversion to float.
#pragma once

#include "cuda_runtime.h"

struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 value) {
  return shim_bits<float>(static_cast<std::uint32_t>(value.bits) << 16);
}
