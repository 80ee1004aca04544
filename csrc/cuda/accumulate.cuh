// The first stage: members of a warp's voxels added up into its tile.
#pragma once

#include <cstdint>

#include "cuda/tile.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

__device__ __forceinline__ const MemberEntry &member_of(const PassArguments &a, int m) {
  return a.member_table == nullptr ? a.members[m] : a.member_table[m];
}

// Terms added up in blocks of eight, which keeps the rounding error of many
// classes small.
constexpr int kSumBlock = 8;

// Over the lanes that share a voxel (lanes apart by a multiple of 32 / split).
template <bool kSplit, typename Real>
__device__ __forceinline__ Real sum_over_parts(Real value, int split_shift) {
  for (int bit = 0; kSplit && bit < split_shift; ++bit) {
    value = value + __shfl_xor_sync(0xffffffffU, value, kWarpLanes >> (bit + 1));
  }
  return value;
}

// ------------------------------------------------------------- softmax of
// logits, in registers

// What a thread carries from member to member: kV voxels, kTier classes each.
template <int kTier, int kV> struct Sums {
  float sum[kTier][kV];
  float entropy[kV];
  float square[kV];
};

// The classes of one thread: all of them, or one of the parts they are dealt
// into.
template <bool kSplit> struct Share {
  int first;
  int classes; // from `first` on
  int split_shift;
  int part;
};

template <typename Element, int kTier, int kV, bool kSplit>
__device__ __forceinline__ void load_member(const Element *from, std::int64_t class_stride,
                                            const Share<kSplit> &share, float (&z)[kTier][kV]) {
#pragma unroll
  for (int k = 0; k < kTier; ++k) {
    if (k < share.classes) {
      load_run<Element, kV>(from + k * class_stride, z[k]);
    } else {
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        z[k][v] = -infinity<float>();
      }
    }
  }
}

// The largest logit of each voxel; NaN is left to the exponentials.
template <int kTier, int kV, bool kSplit>
__device__ __forceinline__ void find_top(const float (&z)[kTier][kV], const Share<kSplit> &share,
                                         float (&top)[kV]) {
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    top[v] = z[0][v];
#pragma unroll
    for (int k = 1; k < kTier; ++k) {
      top[v] = fmaxf(top[v], z[k][v]);
    }
    for (int bit = 0; kSplit && bit < share.split_shift; ++bit) {
      top[v] = fmaxf(top[v], __shfl_xor_sync(0xffffffffU, top[v], kWarpLanes >> (bit + 1)));
    }
  }
}

// A vote for the lowest class that reaches the top.
template <int kTier, int kV, bool kSplit>
__device__ __forceinline__ void add_votes(int classes, const float (&z)[kTier][kV],
                                          const float (&top)[kV], const Share<kSplit> &share,
                                          const Tile<float> &tile, int slot) {
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    int best = classes; // where all are NaN
#pragma unroll
    for (int k = kTier - 1; k >= 0; --k) {
      best = z[k][v] == top[v] ? share.first + k : best;
    }
    for (int bit = 0; kSplit && bit < share.split_shift; ++bit) {
      const int other = __shfl_xor_sync(0xffffffffU, best, kWarpLanes >> (bit + 1));
      best = other < best ? other : best;
    }
    if (best < classes && share.part == 0 && slot + v < tile.count) {
      tile.votes_at(best, slot + v) += 1.0F;
    }
  }
}

// z becomes e^((z - top) / T); the sums over the classes of that, and of that
// times z - top.
template <int kTier, int kV, bool kMoment>
__device__ __forceinline__ void exponentiate(float (&z)[kTier][kV], const float (&top)[kV],
                                             float factor, float (&total)[kV],
                                             float (&moment)[kV]) {
  constexpr float kLowest = -3e38F; // minus infinity times 0 would be NaN
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    total[v] = 0.0F;
    moment[v] = 0.0F;
#pragma unroll
    for (int first = 0; first < kTier; first += kSumBlock) {
      float part = 0.0F;
      float moment_part = 0.0F;
#pragma unroll
      for (int k = first; k < (first + kSumBlock < kTier ? first + kSumBlock : kTier); ++k) {
        const float d = z[k][v] - top[v];
        z[k][v] = exp_scaled(d, factor);
        part = part + z[k][v];
        if (kMoment) {
          moment_part = fused(z[k][v], fmaxf(d, kLowest), moment_part);
        }
      }
      total[v] = total[v] + part;
      moment[v] = moment[v] + moment_part;
    }
  }
}

// One member's numbers, z, into the sums.
template <int kTier, int kV, bool kSplit>
__device__ __forceinline__ void
add_softmax(const PassArguments &a, const MemberEntry &member, const Share<kSplit> &share,
            const Tile<float> &tile, int slot, float (&z)[kTier][kV], Sums<kTier, kV> &sums) {
  const float weight = static_cast<float>(member.weight);
  const float inverse_temperature = static_cast<float>(member.inverse_temperature);
  float top[kV];
  float total[kV];
  float moment[kV];
  find_top(z, share, top);
  if (a.keeps_votes) {
    add_votes(a.classes, z, top, share, tile, slot);
  }
  if (kV == 1 || a.keeps_entropy) { // one variant is enough where speed is not the point
    exponentiate<kTier, kV, true>(z, top, exp_factor(inverse_temperature), total, moment);
  } else {
    exponentiate<kTier, kV, false>(z, top, exp_factor(inverse_temperature), total, moment);
  }
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    total[v] = sum_over_parts<kSplit>(total[v], share.split_shift);
    const float inverse = divide_approximate(1.0F, total[v]);
    const float scaled = inverse * weight;
    if (a.keeps_entropy) {
      moment[v] = sum_over_parts<kSplit>(moment[v], share.split_shift);
      const float h = fused(-moment[v] * inverse, inverse_temperature, log_natural(total[v]));
      sums.entropy[v] = fused(h, weight, sums.entropy[v]);
    }
    if (a.keeps_square) {
      float squares = 0.0F;
#pragma unroll
      for (int k = 0; k < kTier; ++k) {
        squares = fused(z[k][v], z[k][v], squares);
      }
      squares = sum_over_parts<kSplit>(squares, share.split_shift);
      sums.square[v] = fused(squares * inverse, scaled, sums.square[v]);
    }
#pragma unroll
    for (int k = 0; k < kTier; ++k) {
      sums.sum[k][v] = fused(z[k][v], scaled, sums.sum[k][v]);
    }
  }
}

template <int kTier, int kV, bool kSplit>
__device__ __forceinline__ void open_sums(const PassArguments &a, const Share<kSplit> &share,
                                          const Tile<float> &tile, int slot,
                                          Sums<kTier, kV> &sums) {
  if (!a.loads_state) {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      sums.entropy[v] = sums.square[v] = 0.0F;
#pragma unroll
      for (int k = 0; k < kTier; ++k) {
        sums.sum[k][v] = 0.0F;
      }
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kTier; ++k) {
    if (k < share.classes) {
      read_plane<kV>(&tile.sum_at(share.first + k, slot), sums.sum[k]);
    }
  }
  if (a.keeps_entropy) {
    read_plane<kV>(tile.entropy + slot, sums.entropy);
  }
  if (a.keeps_square) {
    read_plane<kV>(tile.square + slot, sums.square);
  }
}

template <int kTier, int kV, bool kSplit>
__device__ __forceinline__ void close_sums(const PassArguments &a, const Share<kSplit> &share,
                                           const Tile<float> &tile, int slot,
                                           const Sums<kTier, kV> &sums) {
#pragma unroll
  for (int k = 0; k < kTier; ++k) {
    if (k < share.classes) {
      write_plane<kV>(&tile.sum_at(share.first + k, slot), sums.sum[k]);
    }
  }
  if (a.keeps_entropy && share.part == 0) {
    write_plane<kV>(tile.entropy + slot, sums.entropy);
  }
  if (a.keeps_square && share.part == 0) {
    write_plane<kV>(tile.square + slot, sums.square);
  }
}

// All members of the kV voxels from `slot` on. A thread without a voxel reads
// another's when it has to take part in exchanges.
template <typename Element, int kTier, int kV, bool kSplit>
__device__ __forceinline__ void accumulate_voxels(const PassArguments &a,
                                                  const Share<kSplit> &share,
                                                  const Tile<float> &tile, int slot) {
  const bool active = slot < tile.count;
  if (!kSplit && !active) {
    return;
  }
  Sums<kTier, kV> sums;
  open_sums(a, share, tile, slot, sums);
  const std::int64_t voxel = tile.first + (active ? slot : 0);
  const std::int64_t offset =
      offset_of(a.grid, a.member.strides, voxel) + share.first * a.member.class_stride;
#pragma unroll 1
  for (int m = 0; m < a.n_members; ++m) {
    const MemberEntry &member = member_of(a, m);
    float z[kTier][kV];
    load_member<Element>(static_cast<const Element *>(member.data) + offset, a.member.class_stride,
                         share, z);
    add_softmax(a, member, share, tile, slot, z, sums);
  }
  if (active) {
    close_sums(a, share, tile, slot, sums);
  }
}

// kV neighbours a thread where members may be read 16 bytes at a time, else
// voxel by voxel.
template <typename Element, int kTier, int kV, bool kSplit>
__device__ __forceinline__ void accumulate_softmax(const PassArguments &a,
                                                   const Tile<float> &tile) {
  if constexpr (kSplit) {
    const int voxels = kWarpLanes >> a.split_shift;
    const int part = tile.lane / voxels;
    const int each = (a.classes + (1 << a.split_shift) - 1) >> a.split_shift;
    const int left = a.classes - part * each;
    const Share<true> share{part * each, left < each ? left : each, a.split_shift, part};
    for (int slot = tile.lane % voxels; slot < kWarpLanes; slot += voxels) {
      accumulate_voxels<Element, kTier, 1>(a, share, tile, slot);
    }
  } else {
    const Share<false> share{0, a.classes, 0, 0};
    if (kV > 1 && a.vector) {
      accumulate_voxels<Element, kTier, kV>(a, share, tile, tile.lane * kV);
      return;
    }
    for (int slot = tile.lane; slot < tile.width; slot += kWarpLanes) {
      accumulate_voxels<Element, kTier, 1>(a, share, tile, slot);
    }
  }
}

// --------------------------------------------------------- everything else, a
// class at a time

// How one member's numbers are read and added.
template <typename Real> struct Kind {
  Real weight;
  Real inverse_temperature;
  Real factor;    // of exp_scaled
  bool from_odds; // probabilities that become logits first
  bool exclusive; // of those: ln p, not ln p - ln (1 - p)
  bool activates; // by a sigmoid
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

// Softmax by three sweeps over the classes of one voxel.
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
#pragma unroll kClassUnroll < R>
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

// What the classes of one voxel leave behind when each stands for itself.
template <typename Real> struct Alone {
  Real entropy = 0;
  Real lost = 0;
  Real square = 0;
  Real top = 0;
  int best = 0;
};

// One class of one voxel; gives what is added to its sum.
template <typename Real>
__device__ __forceinline__ Real add_class(const PassArguments &a, const Kind<Real> &kind,
                                          const Tile<Real> &tile, int c, int slot, Real value,
                                          Alone<Real> &alone) {
  if (kind.from_odds) {
    value = logit_of(value, kind.exclusive);
  }
  if (!kind.logit_space && kind.activates) {
    value = sigmoid(value, kind.factor);
  }
  const bool multilabel = a.reading.multilabel;
  if (a.keeps_entropy) {
    const Real p = not_negative(value);
    add_compensated(alone.entropy, alone.lost,
                    multilabel ? bernoulli_entropy(p > Real{1} ? Real{1} : p) : -p_log_p(p));
  }
  if (a.keeps_square) {
    alone.square = fused(value, value, alone.square);
  }
  if (a.keeps_votes && multilabel) {
    const Real threshold = kind.logit_space ? Real{0} : Real(0.5);
    tile.votes_at(c, slot) += value > threshold ? Real{1} : Real{0};
  }
  alone.best = c > 0 && value > alone.top ? c : alone.best;
  alone.top = c == 0 || value > alone.top ? value : alone.top;
  return value;
}

template <typename Real>
__device__ __forceinline__ void close_alone(const PassArguments &a, const Kind<Real> &kind,
                                            const Tile<Real> &tile, int slot,
                                            const Alone<Real> &alone) {
  if (a.keeps_entropy) {
    tile.entropy[slot] = fused(alone.entropy, kind.weight, tile.entropy[slot]);
  }
  if (a.keeps_square) {
    tile.square[slot] = fused(alone.square, kind.weight, tile.square[slot]);
  }
  if (a.keeps_votes && !a.reading.multilabel) {
    tile.votes_at(alone.best, slot) += Real{1};
  }
}

// Classes that do not share a denominator: sigmoid outputs, probabilities as
// they are, or logits that are averaged. kV voxels from `slot` on.
template <typename Element, int kV>
__device__ __forceinline__ void add_independent(const PassArguments &a, const Element *from,
                                                const Kind<Real<Element>> &kind,
                                                const Tile<Real<Element>> &tile, int slot) {
  using R = Real<Element>;
  const R weight = kind.logit_space ? kind.weight * kind.inverse_temperature : kind.weight;
  Alone<R> alone[kV];
#pragma unroll kClassUnroll < R>
  for (int c = 0; c < a.classes; ++c) {
    R value[kV];
    R sum[kV];
    load_run<Element, kV>(from + c * a.member.class_stride, value);
    read_plane<kV>(&tile.sum_at(c, slot), sum);
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      const R term = add_class(a, kind, tile, c, slot + v, value[v], alone[v]);
      sum[v] = fused(term, weight, sum[v]);
    }
    write_plane<kV>(&tile.sum_at(c, slot), sum);
  }
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    close_alone(a, kind, tile, slot + v, alone[v]);
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
      __syncwarp(); // the next member may be read in the other order
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
