#include "cuda/device.h"

#include <cstdlib>
#include <sstream>

#include <cuda_runtime.h>

// What the kernels were compiled for, as CMake says.
#ifndef FASTCAL_CUDA_ARCHITECTURES
#define FASTCAL_CUDA_ARCHITECTURES "75-real 80-real 90-real 100-real 120"
#endif

namespace fastcal::cuda {

namespace {

// Whether the module holds machine code (for the same major version, not newer) or PTX (not newer).
bool compiled_for(int capability) {
  std::istringstream architectures(FASTCAL_CUDA_ARCHITECTURES);
  std::string architecture;
  while (architectures >> architecture) {
    const int built = std::atoi(architecture.c_str());
    if (built == 0) {
      return true; // "native", "all": the builder's choice
    }
    const bool machine_code = architecture.find("-virtual") == std::string::npos;
    const bool ptx = architecture.find("-real") == std::string::npos;
    if (built <= capability && (ptx || (machine_code && built / 10 == capability / 10))) {
      return true;
    }
  }
  return false;
}

std::string version_name(int version) { // 13020 is 13.2
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// CUDA answers cudaErrorInsufficientDriver both where there is no driver and where it is too old.
std::string without_driver() {
  int driver = 0;
  int runtime = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  if (driver == 0) {
    return "no NVIDIA driver was found";
  }
  return "the NVIDIA driver is too old: it runs CUDA " + version_name(driver) +
         ", these kernels were built with " + version_name(runtime);
}

} // namespace

Error DeviceGuard::enter(int device) {
  FASTCAL_CUDA_TRY(cudaGetDevice(&before_));
  if (before_ != device) {
    FASTCAL_CUDA_TRY(cudaSetDevice(device));
    changed_ = true;
  }
  return {};
}

DeviceGuard::~DeviceGuard() {
  if (changed_) {
    static_cast<void>(cudaSetDevice(before_));
  }
}

Error shared_limit(int device, std::int64_t *bytes) {
  int limit = 0;
  FASTCAL_CUDA_TRY(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  *bytes = limit;
  return {};
}

Error processors(int device, std::int64_t *count) {
  int found = 0;
  FASTCAL_CUDA_TRY(cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device));
  *count = found;
  return {};
}

Error compute_capability(int device, int *capability) {
  int major = 0;
  int minor = 0;
  FASTCAL_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  FASTCAL_CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  *capability = 10 * major + minor;
  return {};
}

std::string unavailable() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    return without_driver();
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    return "the NVIDIA driver shows no GPU";
  }
  if (status != cudaSuccess) {
    return cudaGetErrorString(status);
  }
  std::string capabilities;
  for (int device = 0; device < count; ++device) {
    int major = 0;
    int minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess) {
      if (compiled_for(10 * major + minor)) {
        return "";
      }
      capabilities += " " + std::to_string(major) + "." + std::to_string(minor);
    }
  }
  return "the kernels were compiled for " FASTCAL_CUDA_ARCHITECTURES
         ", the GPUs here have compute capability" +
         capabilities;
}

} // namespace fastcal::cuda
