// What the pass of temperature scaling reads: the voxels of a warp as finite logits, and which
// class is present. A lane has kFitVoxels voxels, a warp's width apart.
#pragma once

#include <cstdint>

#include "core/temperature.h"
#include "cuda/pieces.h"
#include "cuda/plain_log.cuh"
#include "cuda/real.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

constexpr int kFitVoxels = 4;
constexpr int kFitTile = kWarpLanes * kFitVoxels;

struct TemperatureArguments {
  Grid grid;
  std::int64_t voxels = 0;
  Pieces pieces;
  TemperatureProblem problem;             // its inverse temperatures are in device memory
  std::int64_t words = 0;                 // of the sums
  double low = 0.0;                       // the logit of the smallest probability
  double *partial = nullptr;              // [piece][words]
  std::int64_t *partial_counts = nullptr; // [piece][temperature_count::kWords]
};

static_assert(sizeof(TemperatureArguments) <= 4096, "beyond the parameter space of older drivers");

template <typename Element> struct FitTile {
  using RealType = Real<Element>;

  const TemperatureArguments &a;
  std::int64_t values[kFitVoxels];
  std::int64_t targets[kFitVoxels];
  int label[kFitVoxels]; // of a voxel with one class
  bool kept[kFitVoxels];
  RealType top[kFitVoxels];

  __device__ __forceinline__ explicit FitTile(const TemperatureArguments &arguments)
      : a(arguments) {}

  __device__ __forceinline__ RealType inverse(int parameter) const {
    return static_cast<RealType>(a.problem.inverse_temperatures[parameter]);
  }

  __device__ __forceinline__ RealType raw(int c, int v) const {
    const auto *from = static_cast<const Element *>(a.problem.values.data);
    return to_real(from[values[v] + c * a.problem.values.class_stride]);
  }

  // ln p, or ln p - ln (1 - p) of a Bernoulli variable, where both are at least their floor.
  __device__ __forceinline__ RealType logit_of_probability_at_least(RealType p) const {
    const auto tiny = static_cast<RealType>(a.problem.floor.tiny);
    const RealType z = plain_log(p > tiny ? p : tiny);
    if (!a.problem.bernoulli) {
      return z;
    }
    const auto rest = static_cast<RealType>(a.problem.floor.rest);
    const RealType q = RealType{1} - p;
    return z - plain_log(q > rest ? q : rest);
  }

  // A finite logit; what it is of a voxel that does not count is of no account.
  __device__ __forceinline__ RealType logit(int c, int v) const {
    const RealType x = raw(c, v);
    if (!a.problem.from_logits) {
      return logit_of_probability_at_least(x);
    }
    const auto low = static_cast<RealType>(a.low);
    const RealType absent = a.problem.bernoulli ? low : top[v] + low;
    return x == -infinity<RealType>() ? absent : x;
  }

  __device__ __forceinline__ bool present(int c, int v) const {
    const View &target = a.problem.target;
    return a.problem.multilabel ? load_integer(target, targets[v] + c * target.class_stride) == 1
                                : label[v] == c;
  }
};

// The voxels that a lane counted.
struct FitCounts {
  std::int64_t words[temperature_count::kWords] = {};
};

// Whether the target of a voxel is good; `wanted` becomes false where it is to be ignored.
template <typename Element>
__device__ __forceinline__ bool read_fit_target(FitTile<Element> &tile, int v, bool &wanted) {
  const TemperatureProblem &p = tile.a.problem;
  const int planes = p.multilabel ? static_cast<int>(p.classes) : 1;
  const std::int64_t limit = p.multilabel ? 2 : p.classes;
  bool good = true;
#pragma unroll 1
  for (int c = 0; c < planes; ++c) {
    const std::int64_t value = load_integer(p.target, tile.targets[v] + c * p.target.class_stride);
    wanted = wanted && !(p.has_ignore_index && value == p.ignore_index);
    good = good && value >= 0 && value < limit;
    tile.label[v] = static_cast<int>(value);
  }
  return good;
}

// Finds the largest logit of a voxel. Whether all its values are numbers.
template <typename Element>
__device__ __forceinline__ bool read_fit_values(FitTile<Element> &tile, int v) {
  using RealType = Real<Element>;
  const TemperatureProblem &p = tile.a.problem;
  bool good = true;
  RealType top = -infinity<RealType>();
#pragma unroll 4
  for (int c = 0; c < static_cast<int>(p.classes); ++c) {
    const RealType x = tile.raw(c, v);
    if (p.from_logits) {
      good = good && x < infinity<RealType>(); // false for NaN
      top = larger(top, x);
    } else {
      good = good && x > RealType(-1e-3) && x < RealType(1.001);
      top = larger(top, tile.logit_of_probability_at_least(x));
    }
  }
  tile.top[v] = top;
  return good && (p.bernoulli || top > -infinity<RealType>());
}

// Reads targets and values of the lane's voxels, and counts them.
template <typename Element>
__device__ __forceinline__ void open_fit_tile(FitTile<Element> &tile, std::int64_t first, int lane,
                                              FitCounts &counts) {
  const TemperatureArguments &a = tile.a;
  const TemperatureProblem &p = a.problem;
#pragma unroll
  for (int v = 0; v < kFitVoxels; ++v) {
    const std::int64_t voxel = first + v * kWarpLanes + lane;
    const std::int64_t at = voxel < a.voxels ? voxel : a.voxels - 1; // a place that may be read
    tile.values[v] = offset_of(a.grid, p.values.strides, at);
    tile.targets[v] = offset_of(a.grid, p.target.strides, at);
    bool wanted = voxel < a.voxels;
    if (p.mask.data != nullptr) {
      wanted = wanted && load_integer(p.mask, offset_of(a.grid, p.mask.strides, at)) != 0;
    }
    const bool inside = read_fit_target(tile, v, wanted);
    const bool valid = read_fit_values(tile, v);
    tile.kept[v] = wanted && inside && valid;
    counts.words[temperature_count::kVoxels] += tile.kept[v] ? 1 : 0;
    counts.words[temperature_count::kInvalid] += wanted && inside && !valid ? 1 : 0;
    counts.words[temperature_count::kBadTarget] += wanted && !inside ? 1 : 0;
  }
}

} // namespace fastcal::cuda
