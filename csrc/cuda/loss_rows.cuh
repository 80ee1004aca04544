// The row of sums of a warp's piece, and the two launches that sums take.
#pragma once

#include <cstdint>

#include "cuda/loss_launch.cuh"
#include "cuda/warp_sum.cuh"

namespace fastcal::cuda {

class RowOfPiece {
public:
  __device__ __forceinline__ RowOfPiece(const LossArguments &a, std::int64_t words)
      : a_(a), words_(words), lane_(static_cast<int>(threadIdx.x) % kWarpLanes),
        piece_(std::int64_t{blockIdx.x} * kPieceWarps + threadIdx.x / kWarpLanes) {}

  // Calls add_tile(place, first) for every tile of the piece, which gives whether a target of the
  // lane was wrong. If one of them was, every word of the row becomes NaN.
  template <typename Function> __device__ __forceinline__ void each_tile(const Function &add_tile) {
    if (piece_ >= a_.pieces.all()) {
      return; // the whole warp
    }
    const std::int64_t first = piece_ % a_.pieces.count * a_.pieces.each;
    const std::int64_t end =
        first + a_.pieces.each < a_.pieces.tiles ? first + a_.pieces.each : a_.pieces.tiles;
    bool wrong = false;
#pragma unroll 1
    for (std::int64_t tile = first; tile < end; ++tile) {
      const TilePlace place{piece_ / a_.pieces.count, tile * kTileVoxels, lane_};
      wrong = add_tile(place, tile == first) || wrong;
    }
    if (tree_sum(wrong ? 1 : 0) > 0) {
      __syncwarp();
      for (std::int64_t word = lane_; word < words_; word += kWarpLanes) {
        row()[word] = quiet_nan<double>();
      }
    }
  }

  // Adds the sum of a warp, which all lanes have.
  __device__ __forceinline__ void add(std::int64_t word, double value, bool first) const {
    if (lane_ == 0) {
      set(word, value, first);
    }
  }

  // Adds what this lane alone has.
  __device__ __forceinline__ void set(std::int64_t word, double value, bool first) const {
    row()[word] = first ? value : row()[word] + value;
  }

  __device__ __forceinline__ int lane() const { return lane_; }

private:
  __device__ __forceinline__ double *row() const { return a_.partial + piece_ * words_; }

  const LossArguments &a_;
  const std::int64_t words_;
  const int lane_;
  const std::int64_t piece_;
};

// Sums the pieces, then the rows of each image.
inline Error launch_sums(LossKernel kernel, LossArguments &a, std::int64_t words,
                         std::size_t shared_bytes, double *sums, const Place &place) {
  if (a.pieces.all() == 0) {
    return {};
  }
  DeviceGuard guard;
  if (const Error error = guard.enter(place.device)) {
    return error;
  }
  const std::int64_t needed = a.pieces.all() * words * static_cast<std::int64_t>(sizeof(double));
  expects(place.workspace_bytes >= needed, "the workspace must hold a row of sums per piece");
  a.partial = static_cast<double *>(place.workspace);
  if (const Error error = launch_pieces(kernel, a, shared_bytes, place)) {
    return error;
  }
  return add_pieces(a.partial, a.pieces, words, /*adds=*/false, sums, place);
}

} // namespace fastcal::cuda
