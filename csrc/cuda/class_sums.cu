// Sums of probabilities and likelihoods per image and class.
#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/loss_launch.cuh"
#include "cuda/loss_rows.cuh"

namespace fastcal::cuda {

namespace {

// The terms of the voxels of one class, added up in Real: a lane has few of them.
template <typename Element, bool kSoftmax>
__device__ __forceinline__ void add_class(const LossArguments &a, const LossTile<Element> &tile,
                                          const Real<Element> *log_total, int c,
                                          Real<Element> (&sums)[sum::kRows]) {
  using RealType = Real<Element>;
#pragma unroll
  for (int v = 0; v < kLaneVoxels; ++v) {
    const RealType z = tile.load(a, c, v);
    const bool kept = tile.target[v] >= 0;
    const bool hot = tile.target[v] == c + a.first_label;
    RealType p;
    RealType lost;      // -ln p
    RealType elsewhere; // what the voxel adds to the last row
    if constexpr (kSoftmax) {
      p = tile.softmax(z, v);
      lost = log_total[v] + (tile.top[v] - z);
      elsewhere = lost;
    } else {
      const Sigmoid<RealType> s = sigmoid_parts(z);
      p = s.p;
      lost = (z < RealType{0} ? -z : RealType{0}) + s.tail;
      elsewhere = hot ? RealType{0} : (z > RealType{0} ? z : RealType{0}) + s.tail;
    }
    sums[sum::kReference] += hot ? RealType{1} : RealType{0};
    if (a.wanted.overlaps && kept) {
      sums[sum::kOverlap] += hot ? p : RealType{0};
      sums[sum::kPredicted] += p;
      sums[sum::kSquared] += p * p;
    }
    if (a.wanted.likelihood) {
      sums[sum::kNll] += hot ? lost : RealType{0};
      sums[sum::kRest] += kept && a.wanted.rest ? elsewhere : RealType{0};
    }
  }
}

template <typename Element, bool kSoftmax>
__global__ void __launch_bounds__(kPieceWarps *kWarpLanes)
    sum_classes(const __grid_constant__ LossArguments a) {
  using RealType = Real<Element>;
  RowOfPiece row(a, sum::kRows * a.classes);
  row.each_tile([&](const TilePlace &place, bool first) {
    LossTile<Element> tile;
    bool wrong = open_tile(a, place, tile);
    RealType log_total[kLaneVoxels];
    if constexpr (kSoftmax) {
      normalise(a, tile, log_total);
    }
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) {
      RealType sums[sum::kRows] = {};
      add_class<Element, kSoftmax>(a, tile, log_total, c, sums);
#pragma unroll
      for (int r = 0; r < sum::kRows; ++r) {
        row.add(r * a.classes + c, tree_sum(static_cast<double>(sums[r])), first);
      }
    }
    return wrong;
  });
}

struct SumKernels {
  template <typename Element, bool kSoftmax> static LossKernel of() {
    return sum_classes<Element, kSoftmax>;
  }
};

} // namespace

std::int64_t loss_workspace_bytes(const LossInput &input, std::int64_t words) {
  const LossArguments a = loss_arguments(input, nullptr, words);
  return a.pieces.all() * words * static_cast<std::int64_t>(sizeof(double));
}

Error class_sums(const LossInput &input, const SumsWanted &wanted, double *sums,
                 const Place &place) {
  const std::int64_t words = sum::kRows * input.classes;
  LossArguments a = loss_arguments(input, nullptr, words);
  a.wanted = wanted;
  return launch_sums(choose_loss_kernel<SumKernels>(input.logits.dtype, input.reading.head), a,
                     words, /*shared_bytes=*/0, sums, place);
}

} // namespace fastcal::cuda
