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

// Real sums of a row: the two scores, one a bin, two a bin with moments.
struct Sums {
  std::int64_t *statistics;
  std::int64_t words; // of a row
  std::int64_t first_bin;
  std::int64_t bins;
  std::int64_t moments; // which follow the bins
};

__global__ void carry_words(const Sums sums, std::int64_t rows) {
  const std::int64_t a_row = 2 + sums.bins + sums.moments;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * a_row;
       i += step) {
    const std::int64_t which = i % a_row;
    const std::int64_t bin = which - 2;
    std::int64_t hi = which == 0 ? word::kBrier : word::kNll;
    if (bin >= sums.bins) {
      hi = sums.first_bin + kBinWords * sums.bins + 2 * (bin - sums.bins);
    } else if (bin >= 0) {
      hi = sums.first_bin + kBinWords * bin + 2;
    }
    std::int64_t *hi_lo = sums.statistics + i / a_row * sums.words + hi;
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
  const Sums sums{counting.statistics, counting.words, counting.top_label_bins,
                  (counting.moment_bins - counting.top_label_bins) / kBinWords,
                  (counting.fine_top_label - counting.moment_bins) / 2};
  const std::int64_t rows = groups * counting.rows;
  const std::int64_t items = rows * (2 + sums.bins + sums.moments);
  const cudaLaunchConfig_t config =
      configure(std::min<std::int64_t>((items + kThreads - 1) / kThreads, 1024), place);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, carry_words, sums, rows));
  return {};
}

} // namespace fastcal::cuda
