// Tables in device memory, written by launches.
#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

constexpr int kWordsPerLaunch = 448; // 8 bytes each: they fit the parameter space
constexpr int kThreads = 128;

struct Words {
  std::uint64_t values[kWordsPerLaunch];
  int count;
};

__global__ void store_words(std::uint64_t *to, const __grid_constant__ Words words) {
  for (int i = static_cast<int>(threadIdx.x); i < words.count; i += kThreads) {
    to[i] = words.values[i];
  }
}

} // namespace

Error write_words(std::uint64_t *to, const std::uint64_t *from, std::int64_t count,
                  const Place &place) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(place.stream);
  for (std::int64_t done = 0; done < count; done += kWordsPerLaunch) {
    Words words;
    words.count = static_cast<int>(std::min<std::int64_t>(count - done, kWordsPerLaunch));
    std::copy_n(from + done, words.count, words.values);
    FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, store_words, to + done, words));
  }
  return {};
}

} // namespace fastcal::cuda
