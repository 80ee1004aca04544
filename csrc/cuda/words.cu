// Small kernels around a pass: tables written, sums carried.
#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

constexpr int kWordsALaunch = 448; // 8 bytes each: within the parameter space
constexpr int kThreads = 128;

struct Words {
  std::uint64_t values[kWordsALaunch];
  int count;
};

__global__ void store_words(std::uint64_t *to, const __grid_constant__ Words words) {
  for (int i = static_cast<int>(threadIdx.x); i < words.count; i += kThreads) {
    to[i] = words.values[i];
  }
}

// Low words of a row: the two scores', then one a bin.
__global__ void carry_words(std::int64_t *statistics, std::int64_t words, std::int64_t first_bin,
                            std::int64_t groups) {
  const std::int64_t bins = (words - first_bin) / kBinWords;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < groups * (bins + 2);
       i += step) {
    const std::int64_t which = i % (bins + 2);
    const std::int64_t hi = which == 0   ? word::kBrier
                            : which == 1 ? word::kNll
                                         : first_bin + kBinWords * (which - 2) + 2;
    std::int64_t *hi_lo = statistics + i / (bins + 2) * words + hi;
    hi_lo[0] += hi_lo[1] >> kFractionBits;
    hi_lo[1] &= kFractionMask;
  }
}

cudaLaunchConfig_t configure(std::int64_t blocks, const Place &place) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(place.stream);
  return config;
}

} // namespace

Error write_words(std::uint64_t *to, const std::uint64_t *from, std::int64_t count,
                  const Place &place) {
  for (std::int64_t done = 0; done < count; done += kWordsALaunch) {
    Words words;
    words.count = static_cast<int>(std::min<std::int64_t>(count - done, kWordsALaunch));
    std::copy_n(from + done, words.count, words.values);
    const cudaLaunchConfig_t config = configure(1, place);
    FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, store_words, to + done, words));
  }
  return {};
}

Error carry_sums(const CountingArguments &counting, std::int64_t groups, const Place &place) {
  const std::int64_t items = groups * ((counting.words - counting.top_label_bins) / kBinWords + 2);
  const cudaLaunchConfig_t config =
      configure(std::min<std::int64_t>((items + kThreads - 1) / kThreads, 1024), place);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, carry_words, counting.statistics, counting.words,
                                      counting.top_label_bins, groups));
  return {};
}

} // namespace fastcal::cuda
