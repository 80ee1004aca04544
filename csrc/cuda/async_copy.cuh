// Copies from device memory to shared memory that run while the thread goes on. A copy lands only
// when the thread that started it has waited for its group, and other lanes see it only after a
// __syncwarp that follows.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace fastcal::cuda {

// A place in shared memory that stays in one register. Without it the compiler finds the address
// anew, in five instructions, wherever it is used.
#ifdef FASTCAL_CUDA_SHIM
struct SharedPlace {
  unsigned char *address;
  explicit SharedPlace(unsigned char *place) : address(place) {}
  unsigned char *at(int offset) const { return address + offset; }
};
#else
class SharedPlace {
public:
  __device__ __forceinline__ explicit SharedPlace(unsigned char *place)
      : address_(static_cast<unsigned>(__cvta_generic_to_shared(place))) {
    asm volatile("" : "+r"(address_));
  }
  __device__ __forceinline__ unsigned char *at(int offset) const {
    return static_cast<unsigned char *>(
        __cvta_shared_to_generic(address_ + static_cast<unsigned>(offset)));
  }

private:
  unsigned address_;
};
#endif

#ifdef FASTCAL_CUDA_SHIM
using shim::commit_copies;
using shim::start_copy;
using shim::wait_for_copies;
#else
// Copies kBytes (8 or 16), to and from addresses that are multiples of it. Only the first `bytes`
// are read; zeros take the place of the others. The host starts no kernel that copies on
// architectures older than 8.0.
template <int kBytes>
__device__ __forceinline__ void start_copy(void *to, const void *from, int bytes) {
#if __CUDA_ARCH__ >= 800
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from),
                 "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from),
                 "n"(kBytes), "r"(bytes)
                 : "memory");
  }
#endif
}

// Closes a group of copies, which may be empty.
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the newest kPending groups of this thread are on their way.
template <int kPending> __device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}
#endif

} // namespace fastcal::cuda
