#include "cuda/temperature.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include <cuda_runtime.h>

#include "core/expects.h"
#include "core/walk.h"
#include "cuda/device.h"
#include "cuda/launch.h"
#include "cuda/temperature_tile.cuh"
#include "cuda/warp_sum.cuh"

namespace fastcal::cuda {

namespace {

// Loss, gradient and curvature that a lane adds up over its piece.
struct LaneSums {
  double loss = 0;
  double gradient = 0;
  double curvature = 0;
};

// Where a warp puts sums that all its lanes have.
struct FitRow {
  double *words;
  int lane;
  bool first; // tile of the piece

  __device__ __forceinline__ void add(std::int64_t word, double value) const {
    const double sum = tree_sum(value);
    if (lane == 0) {
      words[word] = first ? sum : words[word] + sum;
    }
  }
};

// Softmax with one temperature: with d = z - max z and e = exp(b d) the loss is ln sum e - b d_y,
// its gradient E[d] - d_y and its curvature Var[d], both under p = e / sum e.
template <typename Element>
__device__ __forceinline__ void add_softmax(const FitTile<Element> &tile, LaneSums &sums) {
  using RealType = Real<Element>;
  const RealType b = tile.inverse(0);
  const RealType factor = exp_factor(b);
  RealType total[kFitVoxels] = {};
  RealType others[kFitVoxels] = {};
  RealType first[kFitVoxels] = {};
  RealType second[kFitVoxels] = {};
  RealType own[kFitVoxels] = {}; // d of the target
#pragma unroll 1
  for (int c = 0; c < static_cast<int>(tile.a.problem.classes); ++c) {
#pragma unroll
    for (int v = 0; v < kFitVoxels; ++v) {
      const RealType d = tile.logit(c, v) - tile.top[v];
      const RealType e = exp_scaled(d, factor);
      const bool hot = tile.label[v] == c;
      total[v] += e;
      others[v] += hot ? RealType{0} : e;
      first[v] += e * d;
      second[v] += e * d * d;
      own[v] = hot ? d : own[v];
    }
  }
#pragma unroll
  for (int v = 0; v < kFitVoxels; ++v) {
    if (tile.kept[v]) {
      // Where the target is the largest class, the loss may be far below one rounding of the total.
      const RealType lost =
          own[v] < RealType{0} ? RealType{0} : others[v] - (total[v] - RealType{1});
      const RealType mean = first[v] / total[v];
      sums.loss += static_cast<double>(plain_log(total[v]) + lost - b * own[v]);
      sums.gradient += static_cast<double>(mean - own[v]);
      sums.curvature += static_cast<double>(second[v] / total[v] - mean * mean);
    }
  }
}

// The softmax of a voxel with a temperature per class.
template <typename Real> struct ScaledSoftmax {
  Real highest[kFitVoxels];
  Real total[kFitVoxels];
  Real rest[kFitVoxels]; // 1 - p of the target, without cancellation
};

template <typename Element>
__device__ __forceinline__ ScaledSoftmax<Real<Element>> scaled_softmax(const FitTile<Element> &tile,
                                                                       LaneSums &sums) {
  using RealType = Real<Element>;
  const int classes = static_cast<int>(tile.a.problem.classes);
  const RealType one = exp_factor(RealType{1});
  ScaledSoftmax<RealType> s;
  RealType others[kFitVoxels] = {};
  RealType own[kFitVoxels] = {};
#pragma unroll
  for (int v = 0; v < kFitVoxels; ++v) {
    s.highest[v] = -infinity<RealType>();
    s.total[v] = 0;
  }
#pragma unroll 1
  for (int c = 0; c < classes; ++c) {
#pragma unroll
    for (int v = 0; v < kFitVoxels; ++v) {
      s.highest[v] = larger(s.highest[v], tile.inverse(c) * tile.logit(c, v));
    }
  }
#pragma unroll 1
  for (int c = 0; c < classes; ++c) {
#pragma unroll
    for (int v = 0; v < kFitVoxels; ++v) {
      const RealType d = tile.inverse(c) * tile.logit(c, v) - s.highest[v];
      const RealType e = exp_scaled(d, one);
      const bool hot = tile.label[v] == c;
      s.total[v] += e;
      others[v] += hot ? RealType{0} : e;
      own[v] = hot ? d : own[v];
    }
  }
#pragma unroll
  for (int v = 0; v < kFitVoxels; ++v) {
    s.rest[v] = others[v] / s.total[v];
    if (tile.kept[v]) {
      const RealType lost =
          own[v] < RealType{0} ? RealType{0} : others[v] - (s.total[v] - RealType{1});
      sums.loss += static_cast<double>(plain_log(s.total[v]) + lost - own[v]);
    }
  }
  return s;
}

template <typename Element>
__device__ __forceinline__ Real<Element> scaled_probability(const FitTile<Element> &tile,
                                                            const ScaledSoftmax<Real<Element>> &s,
                                                            int c, int v, Real<Element> z) {
  using RealType = Real<Element>;
  const RealType one = exp_factor(RealType{1});
  return exp_scaled(tile.inverse(c) * z - s.highest[v], one) / s.total[v];
}

// Adds gradient_k = (p_k - y_k) z_k and Hessian_kl = p_k (1{k = l} - p_l) z_k z_l. The products of
// pairs are computed anew, since they would not fit registers.
template <typename Element>
__device__ __forceinline__ void add_softmax_per_class(const FitTile<Element> &tile,
                                                      const FitRow &row, LaneSums &sums) {
  using RealType = Real<Element>;
  const ScaledSoftmax<RealType> s = scaled_softmax(tile, sums);
  const int classes = static_cast<int>(tile.a.problem.classes);
  const std::int64_t hessian = TemperatureLayout::kGradient + classes;
#pragma unroll 1
  for (int c = 0; c < classes; ++c) {
    RealType products[kFitVoxels];
    double gradient = 0;
    double diagonal = 0;
#pragma unroll
    for (int v = 0; v < kFitVoxels; ++v) {
      const RealType z = tile.logit(c, v);
      const RealType p = scaled_probability(tile, s, c, v, z);
      const bool hot = tile.label[v] == c;
      products[v] = tile.kept[v] ? p * z : RealType{0};
      const RealType first = (hot ? -s.rest[v] : p) * z;
      const RealType second = (hot ? s.rest[v] : RealType{1} - p) * z;
      gradient += tile.kept[v] ? static_cast<double>(first) : 0.0;
      diagonal += tile.kept[v] ? static_cast<double>(products[v] * second) : 0.0;
    }
    row.add(TemperatureLayout::kGradient + c, gradient);
    row.add(hessian + std::int64_t{c} * classes + c, diagonal);
#pragma unroll 1
    for (int k = 0; k < c; ++k) {
      double both = 0;
#pragma unroll
      for (int v = 0; v < kFitVoxels; ++v) {
        const RealType z = tile.logit(k, v);
        const RealType other = scaled_probability(tile, s, k, v, z) * z;
        both -= tile.kept[v] ? static_cast<double>(products[v] * other) : 0.0;
      }
      row.add(hessian + std::int64_t{c} * classes + k, both);
      row.add(hessian + std::int64_t{k} * classes + c, both);
    }
  }
}

// Bernoulli variables: with t = (1 - 2 y) b z and s the sigmoid, the loss is ln (1 + e^t), its
// gradient (1 - 2 y) z s(t) and its curvature s(t) s(-t) z^2.
template <typename Element>
__device__ __forceinline__ void add_bernoullis(const FitTile<Element> &tile, const FitRow &row,
                                               LaneSums &sums) {
  using RealType = Real<Element>;
  const bool per_class = tile.a.problem.per_class;
  const int classes = static_cast<int>(tile.a.problem.classes);
  const std::int64_t hessian = TemperatureLayout::kGradient + classes;
#pragma unroll 1
  for (int c = 0; c < classes; ++c) {
    const RealType b = tile.inverse(per_class ? c : 0);
    LaneSums own;
#pragma unroll
    for (int v = 0; v < kFitVoxels; ++v) {
      if (tile.kept[v]) {
        const RealType z = tile.logit(c, v);
        const RealType side = tile.present(c, v) ? -z : z;
        const RealType t = side * b;
        const RealType e = exp_scaled(t < RealType{0} ? t : -t, exp_factor(RealType{1}));
        const RealType total = RealType{1} + e;
        const RealType share = (t < RealType{0} ? e : RealType{1}) / total;
        const RealType above = t < RealType{0} ? RealType{0} : t;
        const RealType lost = e - (total - RealType{1});
        own.loss += static_cast<double>(above + (plain_log(total) + lost));
        own.gradient += static_cast<double>(share * side);
        own.curvature += static_cast<double>(e / (total * total) * side * side);
      }
    }
    sums.loss += own.loss;
    if (per_class) {
      row.add(TemperatureLayout::kGradient + c, own.gradient);
      row.add(hessian + std::int64_t{c} * classes + c, own.curvature);
    } else {
      sums.gradient += own.gradient;
      sums.curvature += own.curvature;
    }
  }
}

template <typename Element>
__global__ void __launch_bounds__(kPieceWarps *kWarpLanes, piece_blocks(sizeof(Real<Element>)))
    sum_temperature(const __grid_constant__ TemperatureArguments a) {
  const std::int64_t piece = std::int64_t{blockIdx.x} * kPieceWarps + threadIdx.x / kWarpLanes;
  if (piece >= a.pieces.count) {
    return; // the whole warp
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  double *words = a.partial + piece * a.words;
  if (a.problem.bernoulli && a.problem.per_class) { // most of the Hessian is not touched
    for (std::int64_t word = lane; word < a.words; word += kWarpLanes) {
      words[word] = 0;
    }
    __syncwarp();
  }
  const std::int64_t start = piece * a.pieces.each;
  const std::int64_t end =
      start + a.pieces.each < a.pieces.tiles ? start + a.pieces.each : a.pieces.tiles;
  LaneSums sums;
  FitCounts counts;
#pragma unroll 1
  for (std::int64_t i = start; i < end; ++i) {
    FitTile<Element> tile(a);
    open_fit_tile(tile, i * kFitTile, lane, counts);
    const FitRow row{words, lane, i == start};
    if (a.problem.bernoulli) {
      add_bernoullis(tile, row, sums);
    } else if (a.problem.per_class) {
      add_softmax_per_class(tile, row, sums);
    } else {
      add_softmax(tile, sums);
    }
  }
  const FitRow row{words, lane, true};
  row.add(TemperatureLayout::kLoss, sums.loss);
  if (!a.problem.per_class) {
    row.add(TemperatureLayout::kGradient, sums.gradient);
    row.add(TemperatureLayout::kGradient + 1, sums.curvature);
  }
#pragma unroll
  for (int word = 0; word < temperature_count::kWords; ++word) {
    const std::int64_t count = tree_sum(counts.words[word]);
    if (lane == 0) {
      a.partial_counts[piece * temperature_count::kWords + word] = count;
    }
  }
}

using Kernel = void (*)(const TemperatureArguments);

Kernel choose(Dtype dtype) {
  switch (dtype) {
  case Dtype::kFloat64:
    return sum_temperature<double>;
  case Dtype::kFloat16:
    return sum_temperature<__half>;
  case Dtype::kBFloat16:
    return sum_temperature<__nv_bfloat16>;
  default:
    return sum_temperature<float>;
  }
}

std::int64_t words_of(std::int64_t classes, bool per_class) {
  return TemperatureLayout{per_class ? classes : 1}.words();
}

// The sums of the pieces, their counts, then the inverse temperatures.
std::int64_t bytes_of(const Pieces &pieces, std::int64_t words, std::int64_t parameters) {
  return 8 * (pieces.count * (words + temperature_count::kWords) + parameters);
}

} // namespace

std::int64_t temperature_workspace_bytes(std::int64_t voxels, std::int64_t classes,
                                         bool per_class) {
  const std::int64_t words = words_of(classes, per_class);
  return bytes_of(pieces_of(1, voxels, kFitTile, words), words, per_class ? classes : 1);
}

Error temperature_sums(const std::vector<std::int64_t> &shape, const TemperatureProblem &problem,
                       const Place &place) {
  TemperatureArguments a;
  a.problem = problem;
  std::vector<View *> operands{&a.problem.values, &a.problem.target};
  if (a.problem.mask.data != nullptr) {
    operands.push_back(&a.problem.mask);
  }
  const Walk walk = plan_walk(shape, operands, 0);
  if (walk.voxels == 0) {
    return {};
  }
  a.voxels = walk.voxels;
  a.grid.axes = walk.axes;
  a.grid.narrow = walk.voxels < (std::int64_t{1} << 31);
  for (int axis = 0; axis < walk.axes; ++axis) {
    a.grid.extents[axis] = walk.extents[axis];
    a.grid.dividers[axis] = Divider(walk.extents[axis]);
  }
  a.words = words_of(problem.classes, problem.per_class);
  a.pieces = pieces_of(1, a.voxels, kFitTile, a.words);
  a.low = std::log(problem.floor.tiny);
  const std::int64_t parameters = problem.per_class ? problem.classes : 1;
  expects(place.workspace_bytes >= bytes_of(a.pieces, a.words, parameters),
          "the workspace must hold a row of sums per piece");
  a.partial = static_cast<double *>(place.workspace);
  a.partial_counts = reinterpret_cast<std::int64_t *>(a.partial + a.pieces.count * a.words);
  auto *inverse = a.partial_counts + a.pieces.count * temperature_count::kWords;

  DeviceGuard guard;
  if (const Error error = guard.enter(place.device)) {
    return error;
  }
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(parameters));
  std::memcpy(bits.data(), problem.inverse_temperatures, bits.size() * sizeof(double));
  if (const Error error =
          write_words(reinterpret_cast<std::uint64_t *>(inverse), bits.data(), parameters, place)) {
    return error;
  }
  a.problem.inverse_temperatures = reinterpret_cast<const double *>(inverse);

  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((a.pieces.count + kPieceWarps - 1) / kPieceWarps));
  config.blockDim = dim3(kPieceWarps * kWarpLanes);
  config.stream = static_cast<cudaStream_t>(place.stream);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, choose(problem.values.dtype), a));
  if (const Error error =
          add_pieces(a.partial, a.pieces, a.words, /*adds=*/true, problem.sums, place)) {
    return error;
  }
  return add_pieces(a.partial_counts, a.pieces, temperature_count::kWords, /*adds=*/true,
                    problem.counts, place);
}

} // namespace fastcal::cuda
