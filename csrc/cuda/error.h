// The answer of a CUDA call. It is returned through the layers and thrown once, at the binding.
#pragma once

namespace fastcal::cuda {

struct [[nodiscard]] Error {
  int code = 0;
  const char *reason = "";

  explicit operator bool() const { return code != 0; }
};

} // namespace fastcal::cuda

#define FASTCAL_CUDA_TRY(call)                                                                     \
  if (const cudaError_t status = (call); status != cudaSuccess) {                                  \
    return ::fastcal::cuda::Error{static_cast<int>(status), cudaGetErrorString(status)};           \
  }
