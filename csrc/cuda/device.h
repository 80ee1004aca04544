// What the host asks the driver about a GPU.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/error.h"

namespace fastcal::cuda {

// Makes the device of the tensors current, and restores the caller's at the end.
class DeviceGuard {
public:
  DeviceGuard() = default;
  DeviceGuard(const DeviceGuard &) = delete;
  DeviceGuard &operator=(const DeviceGuard &) = delete;
  ~DeviceGuard();

  Error enter(int device);

private:
  int before_ = 0;
  bool changed_ = false;
};

// The most shared memory that a block may ask for, in bytes.
Error shared_limit(int device, std::int64_t *bytes);

Error processors(int device, std::int64_t *count);

// 90 for 9.0
Error compute_capability(int device, int *capability);

// Empty, or the reason why no GPU of this machine can run the kernels. Touches the driver.
std::string unavailable();

} // namespace fastcal::cuda
