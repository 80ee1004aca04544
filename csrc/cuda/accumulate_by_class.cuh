// The first stage for everything but the softmax of a moderate number of logits: class by class,
// with the sums in the tile.
#pragma once

#include <cstdint>

#include "cuda/tile.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

// How the numbers of one member are read and added.
template <typename Real> struct Kind {
  Real weight;
  Real inverse_temperature;
  Real factor;    // of exp_scaled
  bool from_odds; // probabilities become logits first
  bool exclusive; // then by ln p, not by ln p - ln (1 - p)
  bool activates; // a sigmoid or the softmax follows
  bool logit_space;
};

template <typename Real>
__device__ __forceinline__ Kind<Real> kind_of(const PassArguments &a, const MemberEntry &member) {
  const Reading &reading = a.reading;
  Kind<Real> kind;
  kind.weight = static_cast<Real>(member.weight);
  kind.inverse_temperature = static_cast<Real>(member.inverse_temperature);
  kind.factor = exp_factor(kind.inverse_temperature);
  kind.from_odds =
      !reading.from_logits && (reading.logit_space || member.inverse_temperature != 1.0);
  kind.exclusive = reading.activation == Activation::kSoftmax && !reading.multilabel;
  kind.activates = reading.from_logits || kind.from_odds;
  kind.logit_space = reading.logit_space;
  return kind;
}

// The softmax of one voxel, by three sweeps over its classes.
template <typename Element>
__device__ __forceinline__ void sweep_softmax(const PassArguments &a, const Element *from,
                                              const Kind<Real<Element>> &kind,
                                              const Tile<Real<Element>> &tile, int slot) {
  using R = Real<Element>;
  const auto logit = [&](int c) {
    const R value = load_one(from + c * a.member.class_stride);
    return kind.from_odds ? logit_of(value, true) : value;
  };
  R top = logit(0);
  int best = 0;
  [[maybe_unused]] constexpr int kUnroll = kClassUnroll<R>;
#pragma unroll kUnroll
  for (int c = 1; c < a.classes; ++c) {
    const R z = logit(c);
    best = z > top ? c : best;
    top = larger(top, z);
  }
  R total = 0, total_lost = 0, moment = 0, moment_lost = 0, squares = 0;
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    const R d = logit(c) - top;
    const R e = exp_scaled(d, kind.factor);
    add_compensated(total, total_lost, e);
    if (a.keeps_entropy) {
      add_compensated(moment, moment_lost, e * larger(d, R(-3e38)));
    }
    squares = fused(e, e, squares);
  }
  const R inverse = divide_approximate(R{1}, total);
  const R scaled = inverse * kind.weight;
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    const R e = exp_scaled(logit(c) - top, kind.factor);
    tile.sum_at(c, slot) = fused(e, scaled, tile.sum_at(c, slot));
  }
  if (a.keeps_entropy) {
    const R h = fused(-moment * inverse, kind.inverse_temperature, log_natural(total));
    tile.entropy[slot] = fused(h, kind.weight, tile.entropy[slot]);
  }
  if (a.keeps_square) {
    tile.square[slot] = fused(squares * inverse, scaled, tile.square[slot]);
  }
  if (a.keeps_votes) {
    tile.votes_at(best, slot) += R{1};
  }
}

// What is carried over the classes of one voxel that do not share a denominator.
template <typename Real> struct VoxelTotals {
  Real entropy = 0;
  Real lost = 0;
  Real square = 0;
  Real top = 0;
  int best = 0;
};

// Reads one class of one voxel, and returns what is to be added to its sum.
template <typename Real>
__device__ __forceinline__ Real add_class(const PassArguments &a, const Kind<Real> &kind,
                                          const Tile<Real> &tile, int c, int slot, Real value,
                                          VoxelTotals<Real> &totals) {
  if (kind.from_odds) {
    value = logit_of(value, kind.exclusive);
  }
  if (!kind.logit_space && kind.activates) {
    value = sigmoid(value, kind.factor);
  } else if (!kind.activates) {
    value = checked_probability(value);
  }
  const bool multilabel = a.reading.multilabel;
  if (a.keeps_entropy) {
    const Real p = not_negative(value);
    add_compensated(totals.entropy, totals.lost,
                    multilabel ? bernoulli_entropy(p > Real{1} ? Real{1} : p) : -p_log_p(p));
  }
  if (a.keeps_square) {
    totals.square = fused(value, value, totals.square);
  }
  if (a.keeps_votes && multilabel) {
    const Real threshold = kind.logit_space ? Real{0} : Real(0.5);
    tile.votes_at(c, slot) += value > threshold ? Real{1} : Real{0};
  }
  totals.best = c > 0 && value > totals.top ? c : totals.best;
  totals.top = c == 0 || value > totals.top ? value : totals.top;
  return value;
}

template <typename Real>
__device__ __forceinline__ void close_voxel(const PassArguments &a, const Kind<Real> &kind,
                                            const Tile<Real> &tile, int slot,
                                            const VoxelTotals<Real> &totals) {
  if (a.keeps_entropy) {
    tile.entropy[slot] = fused(totals.entropy, kind.weight, tile.entropy[slot]);
  }
  if (a.keeps_square) {
    tile.square[slot] = fused(totals.square, kind.weight, tile.square[slot]);
  }
  if (a.keeps_votes && !a.reading.multilabel) {
    tile.votes_at(totals.best, slot) += Real{1};
  }
}

// Adds the kV voxels from `slot` on, of classes that do not share a denominator: outputs of a
// sigmoid, probabilities as they are, or logits that are averaged.
template <typename Element, int kV>
__device__ __forceinline__ void add_independent(const PassArguments &a, const Element *from,
                                                const Kind<Real<Element>> &kind,
                                                const Tile<Real<Element>> &tile, int slot) {
  using R = Real<Element>;
  const R weight = kind.logit_space ? kind.weight * kind.inverse_temperature : kind.weight;
  VoxelTotals<R> totals[kV];
  [[maybe_unused]] constexpr int kUnroll = kClassUnroll<R>;
#pragma unroll kUnroll
  for (int c = 0; c < a.classes; ++c) {
    R value[kV];
    R sum[kV];
    load_run<Element, kV>(from + c * a.member.class_stride, value);
    read_plane<kV>(&tile.sum_at(c, slot), sum);
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      const R term = add_class(a, kind, tile, c, slot + v, value[v], totals[v]);
      sum[v] = fused(term, weight, sum[v]);
    }
    write_plane<kV>(&tile.sum_at(c, slot), sum);
  }
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    close_voxel(a, kind, tile, slot + v, totals[v]);
  }
}

template <typename Element, int kV>
__device__ __forceinline__ void accumulate_by_class(const PassArguments &a,
                                                    const Tile<Real<Element>> &tile) {
  const bool softmax = !a.reading.logit_space && a.reading.activation == Activation::kSoftmax &&
                       !a.reading.multilabel;
#pragma unroll 1
  for (int m = 0; m < a.n_members; ++m) {
    const MemberEntry &member = member_of(a, m);
    const Kind<Real<Element>> kind = kind_of<Real<Element>>(a, member);
    const Element *data = static_cast<const Element *>(member.data);
    if (kV > 1 && a.vector && !(softmax && kind.activates)) {
      const int slot = tile.lane * kV;
      if (slot < tile.count) {
        const std::int64_t offset = offset_of(a.grid, a.member.strides, tile.first + slot);
        add_independent<Element, kV>(a, data + offset, kind, tile, slot);
      }
      __syncwarp(); // lanes may take other voxels of the next member
      continue;
    }
    for (int slot = tile.lane; slot < tile.count; slot += kWarpLanes) {
      const std::int64_t offset = offset_of(a.grid, a.member.strides, tile.first + slot);
      if (softmax && kind.activates) {
        sweep_softmax(a, data + offset, kind, tile, slot);
      } else {
        add_independent<Element, 1>(a, data + offset, kind, tile, slot);
      }
    }
    __syncwarp();
  }
}

} // namespace fastcal::cuda
