// Gaps between probability and outcome per image, class and bin.
#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/loss_launch.cuh"
#include "cuda/loss_rows.cuh"

namespace fastcal::cuda {

namespace {

// Bins that are summed at once. A lane has a column of its own, so that nothing meets and the order
// of each sum is that of the lane's voxels. More bins take the voxels several times.
template <typename Real> constexpr int kGroup = 128 / static_cast<int>(sizeof(Real));

template <typename Real> struct BinColumns {
  Real gaps[kGroup<Real>][kWarpLanes];
  Real amounts[kGroup<Real>][kWarpLanes];
};

constexpr std::size_t kColumnBytes = kPieceWarps * sizeof(BinColumns<float>);
static_assert(sizeof(BinColumns<float>) == sizeof(BinColumns<double>));

__device__ __forceinline__ unsigned char *column_memory() {
#ifdef FASTCAL_CUDA_SHIM
  return shim::dynamic_shared();
#else
  extern __shared__ __align__(16) unsigned char bin_columns[];
  return bin_columns;
#endif
}

template <typename Real>
__device__ __forceinline__ void clear(BinColumns<Real> &columns, int rows, int lane) {
#pragma unroll 4
  for (int r = 0; r < rows; ++r) {
    columns.gaps[r][lane] = 0;
    columns.amounts[r][lane] = 0;
  }
}

template <typename Real>
__device__ __forceinline__ void add_share(BinColumns<Real> &columns, int bin, int rows, int lane,
                                          Real share, Real off) {
  if (bin >= 0 && bin < rows) {
    columns.gaps[bin][lane] += share * off;
    columns.amounts[bin][lane] += share;
  }
}

// Adds up a row of columns, from the lane's own on, so that the lanes read different banks.
template <typename Real>
__device__ __forceinline__ double sum_columns(const Real (&row)[kWarpLanes], int lane) {
  double sum = 0;
#pragma unroll 8
  for (int i = 0; i < kWarpLanes; ++i) {
    sum += static_cast<double>(row[(lane + i) % kWarpLanes]);
  }
  return sum;
}

template <typename Element, bool kSoftmax>
__global__ void __launch_bounds__(kPieceWarps *kWarpLanes, piece_blocks(sizeof(Real<Element>)))
    sum_bins(const __grid_constant__ LossArguments a) {
  using RealType = Real<Element>;
  BinColumns<RealType> &columns =
      reinterpret_cast<BinColumns<RealType> *>(column_memory())[threadIdx.x / kWarpLanes];
  const int count = static_cast<int>(a.bins.count);
  const std::int64_t words = 2 * a.bins.count + 1;
  RowOfPiece row(a, words * a.classes);
  const int lane = row.lane();
  row.each_tile([&](const TilePlace &place, bool first) {
    LossTile<Element> tile;
    const bool wrong = open_tile(a, place, tile);
    if constexpr (kSoftmax) {
      normalise(a, tile, static_cast<RealType *>(nullptr));
    }
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) {
      int hits = 0;
#pragma unroll 1
      for (int from = 0; from < count; from += kGroup<RealType>) {
        const int rows = count - from < kGroup<RealType> ? count - from : kGroup<RealType>;
        clear(columns, rows, lane);
        hits = 0;
#pragma unroll
        for (int v = 0; v < kLaneVoxels; ++v) {
          const bool hot = tile.target[v] == c + a.first_label;
          hits += hot ? 1 : 0;
          if (tile.target[v] >= 0) {
            const RealType p = probability_of<Element, kSoftmax>(tile, tile.load(a, c, v), v);
            const RealType off = p - (hot ? RealType{1} : RealType{0});
            const Bin<RealType> bin = place_in_bins(a, p);
            add_share(columns, bin.left - from, rows, lane, RealType{1} - bin.share, off);
            if (a.bins.soft) {
              add_share(columns, bin.right - from, rows, lane, bin.share, off);
            }
          }
        }
        __syncwarp();
        if (lane < rows) {
          row.set(c * words + from + lane, sum_columns(columns.gaps[lane], lane), first);
          row.set(c * words + count + from + lane, sum_columns(columns.amounts[lane], lane), first);
        }
        __syncwarp();
      }
      row.add(c * words + 2 * a.bins.count, static_cast<double>(tree_sum(hits)), first);
    }
    return wrong;
  });
}

struct BinKernels {
  template <typename Element, bool kSoftmax> static LossKernel of() {
    return sum_bins<Element, kSoftmax>;
  }
};

} // namespace

Error bin_gaps(const LossInput &input, const Bins &bins, const void *thresholds, double *sums,
               const Place &place) {
  const std::int64_t words = bins.words() * input.classes;
  LossArguments a = loss_arguments(input, nullptr, words);
  a.bins = bins;
  a.thresholds = thresholds;
  return launch_sums(choose_loss_kernel<BinKernels>(input.logits.dtype, input.reading.head), a,
                     words, kColumnBytes, sums, place);
}

} // namespace fastcal::cuda
