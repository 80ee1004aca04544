// Enough of CUDA to compile the kernels of csrc/cuda with a C++ compiler and to run them on the
// CPU, with one fibre per lane and collectives that wait for every lane they name. The compiler
// finds this file before the toolkit's header of the same name. It sees asynchronous copies that
// nobody waits for, but neither races nor other missing barriers; compute-sanitizer does.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#define FASTCAL_CUDA_SHIM 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace shim {

constexpr int kLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffU;

const dim3 &thread_index();
unsigned char *dynamic_shared();

[[noreturn]] void fail(const char *reason);

enum class Kind { kNone, kSyncThreads, kSyncWarp, kShuffle };

// Waits until every lane of the mask (for kSyncThreads, every thread of the block) is here, and
// returns the values that the lanes of this warp brought.
const std::uint64_t *collect(Kind kind, unsigned mask, std::uint64_t value);

using Body = void (*)(void *);
// Runs body(argument) for every thread of every block.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, Body body, void *argument);

long long setting(const char *name, long long otherwise);

template <typename T> T aligned_read(const T *from) {
  if (reinterpret_cast<std::uintptr_t>(from) % sizeof(T) != 0) {
    fail("a wide load from an address that is not aligned to its size");
  }
  return *from;
}

} // namespace shim

extern dim3 gridDim;
extern dim3 blockDim;
extern dim3 blockIdx;
#define threadIdx (shim::thread_index())

namespace fastcal::cuda {
inline unsigned char *shared_memory() { return shim::dynamic_shared(); }
} // namespace fastcal::cuda

inline void __syncthreads() { shim::collect(shim::Kind::kSyncThreads, shim::kAllLanes, 0); }
inline void __syncwarp(unsigned mask = shim::kAllLanes) {
  shim::collect(shim::Kind::kSyncWarp, mask, 0);
}

template <typename T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const std::uint64_t *all = shim::collect(shim::Kind::kShuffle, mask, bits);
  const unsigned lane = threadIdx.x % shim::kLanes;
  std::memcpy(&value, &all[lane ^ static_cast<unsigned>(lane_mask)], sizeof value);
  return value;
}

template <typename T> T atomicAdd(T *at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}

// Asynchronous copies. A copy is taken down when it is started, and lands when its lane waits for
// its group; until then its place holds NaN in every floating-point type.
namespace shim {
void note_copy(void *to, const void *from, int size, int bytes);
void close_group();
void land_copies(int pending);

template <int kBytes> void start_copy(void *to, const void *from, int bytes) {
  static_assert(kBytes == 8 || kBytes == 16);
  note_copy(to, from, kBytes, bytes);
}
inline void commit_copies() { close_group(); }
template <int kPending> void wait_for_copies() { land_copies(kPending); }
} // namespace shim

template <typename T> T __ldcs(const T *from) { return shim::aligned_read(from); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b);
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline long long __float2ll_rn(float x) { return std::llrint(static_cast<double>(x)); }
inline long long __double2ll_rn(double x) { return std::llrint(x); }

template <typename To, typename From> To shim_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &value, sizeof to);
  return to;
}
inline int __float_as_int(float x) { return shim_bits<int>(x); }
inline float __int_as_float(int x) { return shim_bits<float>(x); }
inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }

namespace shim {

// An error between -1 and 1 without a pattern, the same for equal numbers.
inline float noise(float x) {
  const std::uint32_t hash = shim_bits<std::uint32_t>(x) * 2654435761U;
  return static_cast<float>(static_cast<std::int32_t>(hash)) * 4.656612873e-10F;
}
// The approximations of the hardware, as far off as their documentation allows.
inline float off_by(float x, float error) { return x + x * (noise(x) * error); }
inline float exp2_approximate(float x) {
  if (x == 0.0F) {
    return 1.0F; // as the documentation of the instruction says
  }
  return x < -126.0F ? 0.0F : off_by(std::exp2(x), 1.7e-7F); // 2^-22.5
}
inline float reciprocal_approximate(float x) { return off_by(1.0F / x, 6e-8F); } // 1 ulp
inline float log2_approximate(float x) {
  const float log = std::log2(x);
  const float size = std::fabs(log) < 1.0F ? 1.0F : std::fabs(log);
  return log - log == 0.0F ? log + size * (noise(log) * 1.6e-7F) : log; // 2^-22.6
}

} // namespace shim

inline float __fdividef(float a, float b) { return shim::off_by(a / b, 1.2e-7F); } // 2 ulp

using cudaError_t = int;
using cudaStream_t = void *;
constexpr cudaError_t cudaSuccess = 0;
constexpr cudaError_t cudaErrorInvalidValue = 1;
constexpr cudaError_t cudaErrorInsufficientDriver = 35;
constexpr cudaError_t cudaErrorNoDevice = 100;

enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

inline const char *cudaGetErrorString(cudaError_t) { return "refused by the shim"; }
inline cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int *version) { // 0 where there is no driver
  *version = static_cast<int>(shim::setting("FASTCAL_SHIM_DRIVER", 13000));
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int *count) {
  *count = static_cast<int>(shim::setting("FASTCAL_SHIM_DEVICES", 1));
  int driver = 0;
  cudaDriverGetVersion(&driver);
  return driver < 13000 ? cudaErrorInsufficientDriver
         : *count == 0  ? cudaErrorNoDevice
                        : cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = static_cast<int>(shim::setting("FASTCAL_SHIM_SHARED_BYTES", 101376)); // sm_120
    break;
  case cudaDevAttrMultiProcessorCount:
    *value = static_cast<int>(shim::setting("FASTCAL_SHIM_PROCESSORS", 1));
    break;
  case cudaDevAttrComputeCapabilityMajor:
    *value = static_cast<int>(shim::setting("FASTCAL_SHIM_CAPABILITY", 90)) / 10;
    break;
  case cudaDevAttrComputeCapabilityMinor:
    *value = static_cast<int>(shim::setting("FASTCAL_SHIM_CAPABILITY", 90)) % 10;
    break;
  }
  return cudaSuccess;
}
namespace shim {

constexpr int kDefaultShared = 48 << 10;

// What a kernel may have of dynamic shared memory.
template <typename Kernel> int &allowed_shared(Kernel kernel) {
  static std::map<Kernel, int> allowed;
  return allowed.try_emplace(kernel, kDefaultShared).first->second;
}

} // namespace shim

// A number that a later launch lowers could be lowered by another thread just before a launch that
// needs the larger one.
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute, int bytes) {
  int &allowed = shim::allowed_shared(kernel);
  int limit = 0;
  cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  if (bytes > limit || (bytes < allowed && bytes < limit)) {
    return cudaErrorInvalidValue;
  }
  allowed = bytes;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Kernel, int, std::size_t) {
  *blocks = 2;
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
};

// Calls the kernel with its parameters, copied as a launch copies them.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments &&...arguments) {
  static_assert((sizeof(Parameters) + ...) <= 4096, "beyond the parameter space");
  int limit = 0;
  cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  const int allowed = std::min(limit, shim::allowed_shared(kernel));
  if (config->dynamicSmemBytes > static_cast<std::size_t>(allowed)) {
    return cudaErrorInvalidValue;
  }
  auto call = [kernel, arguments...] { kernel(arguments...); };
  shim::run_grid(
      config->gridDim, config->blockDim, config->dynamicSmemBytes,
      [](void *argument) { (*static_cast<decltype(call) *>(argument))(); }, &call);
  return cudaSuccess;
}
