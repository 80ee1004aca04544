// Element types by the numbers that the bindings hand over.
#pragma once

#include <cstdint>

namespace fastcal {

enum class Dtype : std::int32_t {
  kFloat32 = 0,
  kFloat16 = 1,
  kBFloat16 = 2,
  kFloat64 = 3,
  kUInt8 = 4,
  kInt8 = 5,
  kInt16 = 6,
  kInt32 = 7,
  kInt64 = 8,
  kUInt16 = 9,
  kUInt32 = 10,
  kUInt64 = 11,
  kBool = 12,
};

constexpr std::int64_t kDtypeBytes[] = {4, 2, 2, 8, 1, 1, 2, 4, 8, 2, 4, 8, 1};

constexpr std::int64_t size_of(Dtype dtype) {
  return kDtypeBytes[static_cast<std::int32_t>(dtype)];
}

} // namespace fastcal
