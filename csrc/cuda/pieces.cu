#include "cuda/pieces.h"

#include <cuda_runtime.h>

#include "cuda/warp_sum.cuh"

namespace fastcal::cuda {

namespace {

constexpr int kThreads = kPieceWarps * kWarpLanes;
constexpr std::int64_t kMostBlocks = 4096;

// A warp for each word of an item: its lanes take every 32nd piece.
template <typename Number>
__global__ void __launch_bounds__(kThreads)
    add_rows(const Number *partial, std::int64_t items, std::int64_t pieces, std::int64_t words,
             bool adds, Number *sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const std::int64_t warps = std::int64_t{gridDim.x} * kPieceWarps;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kPieceWarps + threadIdx.x / kWarpLanes;
       i < items * words; i += warps) {
    const Number *row = partial + i / words * pieces * words + i % words;
    Number sum = 0;
    for (std::int64_t piece = lane; piece < pieces; piece += kWarpLanes) {
      sum += row[piece * words];
    }
    sum = tree_sum(sum);
    if (lane == 0) {
      sums[i] = adds ? sums[i] + sum : sum;
    }
  }
}

template <typename Number>
Error launch_add(const Number *partial, const Pieces &pieces, std::int64_t words, bool adds,
                 Number *sums, const Place &place) {
  const std::int64_t blocks = (pieces.items * words + kPieceWarps - 1) / kPieceWarps;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(blocks, kMostBlocks)));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(place.stream);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, add_rows<Number>, partial, pieces.items,
                                      pieces.count, words, adds, sums));
  return {};
}

} // namespace

Error add_pieces(const double *partial, const Pieces &pieces, std::int64_t words, bool adds,
                 double *sums, const Place &place) {
  return launch_add(partial, pieces, words, adds, sums, place);
}

Error add_pieces(const std::int64_t *partial, const Pieces &pieces, std::int64_t words, bool adds,
                 std::int64_t *sums, const Place &place) {
  return launch_add(partial, pieces, words, adds, sums, place);
}

} // namespace fastcal::cuda
