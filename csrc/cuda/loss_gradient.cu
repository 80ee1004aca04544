// The gradient by the logits of a loss that is a function of sums, of classes or of bins.
#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/loss_launch.cuh"

namespace fastcal::cuda {

namespace {

__device__ __forceinline__ void store_rounded(float *to, float value) { *to = value; }
__device__ __forceinline__ void store_rounded(double *to, double value) { *to = value; }
__device__ __forceinline__ void store_rounded(__half *to, float value) {
  *to = __float2half_rn(value);
}
__device__ __forceinline__ void store_rounded(__nv_bfloat16 *to, float value) {
  *to = __float2bfloat16_rn(value);
}

// The derivative by p of a loss of class sums.
template <typename Real> struct ClassSlope {
  const double *factors; // of the image
  bool overlaps;
  std::int64_t classes;

  __device__ __forceinline__ ClassSlope(const LossArguments &a, std::int64_t item)
      : factors(a.factors + item * sum::kRows * a.classes), overlaps(a.wanted.overlaps),
        classes(a.classes) {}

  __device__ __forceinline__ Real factor(std::int64_t row, int c) const {
    return static_cast<Real>(factors[row * classes + c]);
  }
  __device__ __forceinline__ Real operator()(const LossArguments &, int c, Real p, bool hot) const {
    if (!overlaps) {
      return Real{0};
    }
    const Real shared = hot ? factor(sum::kOverlap, c) : Real{0};
    return shared + factor(sum::kPredicted, c) + Real{2} * factor(sum::kSquared, c) * p;
  }
};

// The same of a loss of bins: through the gap of each bin, and through shares that move with p.
template <typename Real> struct BinSlope {
  const double *factors;

  __device__ __forceinline__ BinSlope(const LossArguments &a, std::int64_t item)
      : factors(a.factors + item * a.classes * (2 * a.bins.count + 1)) {}

  __device__ __forceinline__ Real factor(std::int64_t, int) const { return Real{0}; }
  __device__ __forceinline__ Real operator()(const LossArguments &a, int c, Real p,
                                             bool hot) const {
    const double *gap = factors + c * (2 * a.bins.count + 1);
    const double *amount = gap + a.bins.count;
    const Bin<Real> bin = place_in_bins(a, p);
    const Real left = static_cast<Real>(gap[bin.left]);
    if (!a.bins.soft) {
      return left;
    }
    const Real step = static_cast<Real>(gap[bin.right]) - left;
    const Real rise = static_cast<Real>(amount[bin.right]) - static_cast<Real>(amount[bin.left]);
    const Real off = p - (hot ? Real{1} : Real{0});
    return left + step * bin.share + bin.growth * (step * off + rise);
  }
};

// p (g - sum_j p_j g_j) + E_y (p - y) + p sum_j R_j - R; the reference backend explains it.
template <typename Element, typename Slope>
__device__ __forceinline__ void softmax_gradient(const LossArguments &a, LossTile<Element> &tile,
                                                 const Slope &slope, Element *gradient,
                                                 const std::int64_t (&places)[kLaneVoxels]) {
  using RealType = Real<Element>;
  const bool likelihood = a.wanted.likelihood;
  normalise(a, tile, static_cast<RealType *>(nullptr));
  RealType common[kLaneVoxels] = {};
  RealType own[kLaneVoxels] = {}; // the likelihood's factor of the target
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    const RealType nll = likelihood ? slope.factor(sum::kNll, c) : RealType{0};
    const RealType rest = likelihood ? slope.factor(sum::kRest, c) : RealType{0};
#pragma unroll
    for (int v = 0; v < kLaneVoxels; ++v) {
      const bool hot = tile.target[v] == c;
      const RealType p = tile.softmax(tile.load(a, c, v), v);
      own[v] = hot ? nll : own[v];
      common[v] += rest - p * slope(a, c, p, hot);
    }
  }
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    const RealType rest = likelihood ? slope.factor(sum::kRest, c) : RealType{0};
#pragma unroll
    for (int v = 0; v < kLaneVoxels; ++v) {
      if (places[v] < 0) {
        continue;
      }
      const bool hot = tile.target[v] == c;
      const RealType p = tile.softmax(tile.load(a, c, v), v);
      const RealType found = p * (slope(a, c, p, hot) + common[v] + own[v]) - rest;
      const RealType value = found - (hot ? own[v] : RealType{0});
      store_rounded(gradient + places[v] + c * a.gradient.class_stride,
                    tile.target[v] < 0 ? RealType{0} : value);
    }
  }
}

template <typename Element, typename Slope>
__device__ __forceinline__ void
sigmoid_gradient(const LossArguments &a, const LossTile<Element> &tile, const Slope &slope,
                 Element *gradient, const std::int64_t (&places)[kLaneVoxels]) {
  using RealType = Real<Element>;
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    const RealType nll = a.wanted.likelihood ? slope.factor(sum::kNll, c) : RealType{0};
    const RealType rest = a.wanted.likelihood ? slope.factor(sum::kRest, c) : RealType{0};
#pragma unroll
    for (int v = 0; v < kLaneVoxels; ++v) {
      if (places[v] < 0) {
        continue;
      }
      const bool hot = tile.target[v] == c + a.first_label;
      const Sigmoid<RealType> s = sigmoid_parts(tile.load(a, c, v));
      const RealType value = s.p * s.q * slope(a, c, s.p, hot) + (hot ? -s.q * nll : s.p * rest);
      store_rounded(gradient + places[v] + c * a.gradient.class_stride,
                    tile.target[v] < 0 ? RealType{0} : value);
    }
  }
}

// A warp for each tile: nothing is added up.
template <typename Element, bool kSoftmax, template <typename> class Slope>
__global__ void __launch_bounds__(kPieceWarps *kWarpLanes)
    write_gradient(const __grid_constant__ LossArguments a) {
  const std::int64_t tiles = a.pieces.items * a.pieces.tiles;
  const std::int64_t warps = std::int64_t{gridDim.x} * kPieceWarps;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
#pragma unroll 1
  for (std::int64_t i = std::int64_t{blockIdx.x} * kPieceWarps + threadIdx.x / kWarpLanes;
       i < tiles; i += warps) {
    const TilePlace place{i / a.pieces.tiles, i % a.pieces.tiles * kTileVoxels, lane};
    LossTile<Element> tile;
    open_tile(a, place, tile);
    std::int64_t places[kLaneVoxels]; // -1 beyond the image
#pragma unroll
    for (int v = 0; v < kLaneVoxels; ++v) {
      const std::int64_t voxel = place.voxel(v);
      places[v] = voxel < a.voxels ? voxel_offset(a, a.gradient, voxel) : -1;
    }
    Element *gradient =
        static_cast<Element *>(a.gradient.data) + item_offset(a, a.gradient, place.item);
    const Slope<Real<Element>> slope(a, place.item);
    if constexpr (kSoftmax) {
      softmax_gradient(a, tile, slope, gradient, places);
    } else {
      sigmoid_gradient(a, tile, slope, gradient, places);
    }
  }
}

template <template <typename> class Slope> struct GradientKernels {
  template <typename Element, bool kSoftmax> static LossKernel of() {
    return write_gradient<Element, kSoftmax, Slope>;
  }
};

Error launch_gradient(LossKernel kernel, const LossArguments &a, const Place &place) {
  if (a.pieces.all() == 0) {
    return {};
  }
  DeviceGuard guard;
  if (const Error error = guard.enter(place.device)) {
    return error;
  }
  const std::int64_t tiles = a.pieces.items * a.pieces.tiles;
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(static_cast<unsigned>(std::min((tiles + kPieceWarps - 1) / kPieceWarps, kMaxGrid)));
  config.blockDim = dim3(kPieceWarps * kWarpLanes);
  config.stream = static_cast<cudaStream_t>(place.stream);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, a));
  return {};
}

} // namespace

Error class_gradient(const LossInput &input, const SumsWanted &wanted, const double *factors,
                     const View &gradient, const Place &place) {
  LossArguments a = loss_arguments(input, &gradient, 1);
  a.wanted = wanted;
  a.factors = factors;
  using Kernels = GradientKernels<ClassSlope>;
  return launch_gradient(choose_loss_kernel<Kernels>(input.logits.dtype, input.reading.head), a,
                         place);
}

Error bin_gradient(const LossInput &input, const Bins &bins, const void *thresholds,
                   const double *factors, const View &gradient, const Place &place) {
  LossArguments a = loss_arguments(input, &gradient, 1);
  a.bins = bins;
  a.thresholds = thresholds;
  a.factors = factors;
  using Kernels = GradientKernels<BinSlope>;
  return launch_gradient(choose_loss_kernel<Kernels>(input.logits.dtype, input.reading.head), a,
                         place);
}

} // namespace fastcal::cuda
