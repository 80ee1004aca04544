// What the passes of the losses share: the voxels of a warp, their targets and their softmax. A
// lane has kLaneVoxels voxels, a warp's width apart, so that a warp reads neighbours.
#pragma once

#include <cstdint>

#include "core/loss.h"
#include "cuda/pieces.h"
#include "cuda/plain_log.cuh"
#include "cuda/real.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

constexpr int kLaneVoxels = 8;
constexpr int kTileVoxels = kWarpLanes * kLaneVoxels;
constexpr int kPinnedAxes = 2;       // groups and images
constexpr int kCompensatedFrom = 17; // classes; a plain sum of more loses digits

struct LossArguments {
  Grid grid;               // the axes of an image
  std::int64_t voxels = 0; // of an image
  std::int64_t images = 1; // of a group
  Pieces pieces;
  std::int32_t classes = 0;
  std::int32_t first_label = 0; // the label of class 0: 1 where it is the only class
  std::int64_t labels = 0;
  bool has_ignore_index = false;
  std::int64_t ignore_index = 0;
  View logits; // the first two strides are those of groups and images
  View target;
  View gradient;
  SumsWanted wanted;
  Bins bins;
  const void *thresholds = nullptr;
  const double *factors = nullptr; // [item][words]
  double *partial = nullptr;       // [item][piece][words]
};

static_assert(sizeof(LossArguments) <= 4096, "beyond the parameter space of older drivers");

__device__ __forceinline__ std::int64_t item_offset(const LossArguments &a, const View &view,
                                                    std::int64_t item) {
  return item / a.images * view.strides[0] + item % a.images * view.strides[1];
}

__device__ __forceinline__ std::int64_t voxel_offset(const LossArguments &a, const View &view,
                                                     std::int64_t voxel) {
  return offset_of(a.grid, view.strides + kPinnedAxes, voxel);
}

// Where a warp works: its image, and the voxel of lane 0 in its first run of neighbours.
struct TilePlace {
  std::int64_t item;
  std::int64_t first;
  int lane;

  __device__ __forceinline__ std::int64_t voxel(int v) const {
    return first + v * kWarpLanes + lane;
  }
};

template <typename Element> struct LossTile {
  using RealType = Real<Element>;

  const Element *logits; // of the image
  std::int64_t offsets[kLaneVoxels];
  int target[kLaneVoxels]; // -1 where a voxel does not count
  RealType top[kLaneVoxels];
  RealType inverse_total[kLaneVoxels];

  __device__ __forceinline__ RealType load(const LossArguments &a, int c, int v) const {
    return to_real(logits[offsets[v] + c * a.logits.class_stride]);
  }

  // The probability of a logit, once `normalise` was called.
  __device__ __forceinline__ RealType softmax(RealType z, int v) const {
    return exp_scaled(z - top[v], exp_factor(RealType{1})) * inverse_total[v];
  }
};

// Reads the targets. Whether one of the lane's is neither a class nor ignored.
template <typename Element>
__device__ __forceinline__ bool open_tile(const LossArguments &a, const TilePlace &place,
                                          LossTile<Element> &tile) {
  tile.logits = static_cast<const Element *>(a.logits.data) + item_offset(a, a.logits, place.item);
  const std::int64_t target = item_offset(a, a.target, place.item);
  bool wrong = false;
#pragma unroll
  for (int v = 0; v < kLaneVoxels; ++v) {
    const std::int64_t voxel = place.voxel(v);
    const bool inside = voxel < a.voxels;
    const std::int64_t at = inside ? voxel : a.voxels - 1; // a place that may be read
    tile.offsets[v] = voxel_offset(a, a.logits, at);
    const std::int64_t label = load_integer(a.target, target + voxel_offset(a, a.target, at));
    const bool kept = inside && !(a.has_ignore_index && label == a.ignore_index);
    const bool known = label >= 0 && label < a.labels;
    wrong = wrong || (kept && !known);
    tile.target[v] = kept && known ? static_cast<int>(label) : -1;
  }
  return wrong;
}

// The softmax of every voxel in one reading: the sum is rescaled where a larger logit is found.
// Gives the logarithms of the totals too, where there is room for them.
template <typename Element>
__device__ __forceinline__ void normalise(const LossArguments &a, LossTile<Element> &tile,
                                          Real<Element> *log_total) {
  using RealType = Real<Element>;
  const RealType one = exp_factor(RealType{1});
  const bool compensated = a.classes >= kCompensatedFrom;
  RealType total[kLaneVoxels];
  RealType lost[kLaneVoxels];
#pragma unroll
  for (int v = 0; v < kLaneVoxels; ++v) {
    tile.top[v] = tile.load(a, 0, v);
    // NaN of the first class must not vanish: its difference from any maximum is NaN.
    total[v] = tile.top[v] == tile.top[v] ? RealType{1} : tile.top[v];
    lost[v] = 0;
  }
#pragma unroll 1
  for (int c = 1; c < a.classes; ++c) {
#pragma unroll
    for (int v = 0; v < kLaneVoxels; ++v) {
      const RealType z = tile.load(a, c, v);
      const RealType top = larger(tile.top[v], z);
      // Equal numbers are compared, because the difference of two infinities is NaN.
      const RealType scale = tile.top[v] == top ? RealType{1} : exp_scaled(tile.top[v] - top, one);
      const RealType e = z == top ? RealType{1} : exp_scaled(z - top, one);
      tile.top[v] = top;
      total[v] *= scale;
      if (compensated) {
        lost[v] *= scale;
        add_compensated(total[v], lost[v], e);
      } else {
        total[v] += e;
      }
    }
  }
#pragma unroll
  for (int v = 0; v < kLaneVoxels; ++v) {
    const RealType sum = is_finite(tile.top[v]) ? total[v] : quiet_nan<RealType>();
    tile.inverse_total[v] = RealType{1} / sum;
    if (log_total != nullptr) {
      log_total[v] = plain_log(sum);
    }
  }
}

// p, 1 - p and ln (1 + e^-|z|), none of which loses digits.
template <typename Real> struct Sigmoid {
  Real p;
  Real q;
  Real tail;
};

template <typename Real> __device__ __forceinline__ Sigmoid<Real> sigmoid_parts(Real z) {
  const Real e = exp_scaled(z < Real{0} ? z : -z, exp_factor(Real{1}));
  const Real larger_part = Real{1} / (Real{1} + e);
  const Real smaller_part = e * larger_part;
  const bool negative = z < Real{0};
  return {negative ? smaller_part : larger_part, negative ? larger_part : smaller_part,
          plain_log(Real{1} + e)};
}

template <typename Element, bool kSoftmax>
__device__ __forceinline__ Real<Element> probability_of(const LossTile<Element> &tile,
                                                        Real<Element> z, int v) {
  if constexpr (kSoftmax) {
    return tile.softmax(z, v);
  } else {
    return sigmoid_parts(z).p;
  }
}

// The bins of a probability: hard ones by thresholds, soft ones as a share of the two nearest
// centres.
template <typename Real> struct Bin {
  int left;
  int right;
  Real share;  // of the right one
  Real growth; // of that share with p
};

template <typename Real>
__device__ __forceinline__ Bin<Real> place_in_bins(const LossArguments &a, Real p) {
  const int last = static_cast<int>(a.bins.count) - 1;
  const auto width = static_cast<Real>(a.bins.count);
  const Real at = a.bins.soft ? p * width - Real(0.5) : p * width;
  const Real inside = at > Real{0} ? (at < Real(last) ? at : Real(last)) : Real{0}; // 0 for NaN
  int left = static_cast<int>(inside);
  if (a.bins.soft) {
    const Real along = at - static_cast<Real>(left);
    const Real share = along < Real{0} ? Real{0} : (along > Real{1} ? Real{1} : along);
    return {left, left < last ? left + 1 : last, share, along == share ? width : Real{0}};
  }
  // The product may be off by one rounding, the comparison is not.
  const auto *thresholds = static_cast<const Real *>(a.thresholds);
  if (left < last && p > thresholds[left]) {
    ++left;
  } else if (left > 0 && p <= thresholds[left - 1]) {
    --left;
  }
  return {left, left, Real{0}, Real{0}};
}

} // namespace fastcal::cuda
