// The carries of the real sums in rows of statistics, after a pass.
#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kMaxBlocks = 1024;

// The real sums of a row: the two scores, one per bin, and two more per bin with moments.
struct Sums {
  std::int64_t *statistics;
  std::int64_t words; // of a row
  std::int64_t first_bin;
  std::int64_t bins;
  std::int64_t moments; // they follow the bins

  FASTCAL_HOST_DEVICE std::int64_t per_row() const { return 2 + bins + moments; }
};

__global__ void carry_words(const Sums sums, std::int64_t rows) {
  const std::int64_t per_row = sums.per_row();
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * per_row;
       i += step) {
    const std::int64_t which = i % per_row;
    const std::int64_t bin = which - 2;
    std::int64_t hi = which == 0 ? word::kBrier : word::kNll;
    if (bin >= sums.bins) {
      hi = sums.first_bin + kBinWords * sums.bins + 2 * (bin - sums.bins);
    } else if (bin >= 0) {
      hi = sums.first_bin + kBinWords * bin + 2;
    }
    std::int64_t *hi_lo = sums.statistics + i / per_row * sums.words + hi;
    hi_lo[0] += hi_lo[1] >> kFractionBits;
    hi_lo[1] &= kFractionMask;
  }
}

} // namespace

Error carry_sums(const CountingArguments &counting, std::int64_t groups, const Place &place) {
  const Sums sums{counting.statistics, counting.words, counting.top_label_bins,
                  (counting.moment_bins - counting.top_label_bins) / kBinWords,
                  (counting.fine_top_label - counting.moment_bins) / 2};
  const std::int64_t rows = groups * counting.rows;
  const std::int64_t blocks = (rows * sums.per_row() + kThreads - 1) / kThreads;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(blocks, kMaxBlocks)));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(place.stream);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, carry_words, sums, rows));
  return {};
}

} // namespace fastcal::cuda
