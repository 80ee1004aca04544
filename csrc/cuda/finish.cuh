// The second stage, maps: what follows from the sums of one voxel.
#pragma once

#include <cstdint>

#include "cuda/tile.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

template <typename Real> struct Outcome {
  bool finite = false;
  bool valid = false; // finite, and in range where that is checked
  int label = 0;
  Real confidence = 0;
  Real class_sum = 0;
  Real entropy = 0;
};

// A plain pass reads logits of a softmax and averages probabilities. Kernels that do nothing else
// leave the other branches out.
template <bool kPlain> __device__ __forceinline__ bool is_multilabel(const PassArguments &a) {
  return !kPlain && a.reading.multilabel;
}
template <bool kPlain> __device__ __forceinline__ bool is_checked(const PassArguments &a) {
  return !kPlain && a.checks_range;
}

__device__ __forceinline__ bool wants(const PassArguments &a, Map map) {
  return a.maps.views[static_cast<int>(map)].data != nullptr;
}

__device__ __forceinline__ bool wants_entropy(const PassArguments &a) {
  return wants(a, Map::kEntropy) || wants(a, Map::kMutualInformation);
}

// Where logits were averaged: activates their mean in place.
template <typename Real>
__device__ __forceinline__ void activate_mean(const PassArguments &a, const Tile<Real> &tile,
                                              int slot) {
  const Real scale = static_cast<Real>(a.scale);
  const Real factor = exp_factor(Real{1});
  if (a.reading.multilabel || a.reading.activation == Activation::kSigmoid) {
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) {
      Real &at = tile.sum_at(c, slot);
      at = sigmoid(at * scale, factor);
    }
    return;
  }
  Real top = -infinity<Real>();
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    top = larger(top, tile.sum_at(c, slot) * scale);
  }
  Real total = 0, lost = 0;
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    Real &at = tile.sum_at(c, slot);
    at = exp_scaled(at * scale - top, factor);
    add_compensated(total, lost, at);
  }
  const Real inverse = divide_approximate(Real{1}, total);
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    tile.sum_at(c, slot) *= inverse;
  }
}

// Divides by the sum over the classes. A voxel that was out of range is given values which the
// check that follows will see.
template <bool kPlain, typename Real>
__device__ __forceinline__ void normalise_mean(const PassArguments &a, const Tile<Real> &tile,
                                               int slot, Real scale) {
  Real total = 0;
  Real spread = 0;
  bool outside = false;
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    const Real p = multiply_exact(tile.sum_at(c, slot), scale);
    spread = add_exact(spread, p);
    total = add_exact(total, not_negative(p));
    outside = outside || out_of_range(p);
  }
  // 2 is not a probability. What is not finite stays so, and does not count as out of range.
  const bool flagged = is_checked<kPlain>(a) && outside && is_finite(spread);
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    Real &at = tile.sum_at(c, slot);
    const Real share = divide_exact(not_negative(multiply_exact(at, scale)), total);
    at = flagged ? Real{2} : share + (spread - spread);
  }
}

template <bool kPlain, typename Real>
__device__ __forceinline__ Outcome<Real> conclude_exclusive(const PassArguments &a,
                                                            const Tile<Real> &tile, int slot,
                                                            Real scale, bool keep) {
  Outcome<Real> out;
  Real lowest = 0;
  Real lost = 0;
  const bool entropy = wants_entropy(a);
  // The rounding errors of a few classes are not worth carrying along.
  const bool few = a.classes <= kFewClasses;
  [[maybe_unused]] constexpr int kUnroll = kClassUnroll<Real>;
#pragma unroll kUnroll
  for (int c = 0; c < a.classes; ++c) {
    const Real raw = multiply_exact(tile.sum_at(c, slot), scale);
    lowest = raw < lowest ? raw : lowest;
    const Real p = not_negative(raw);
    if (keep) {
      tile.sum_at(c, slot) = p;
    }
    out.class_sum = add_exact(out.class_sum, p);
    out.label = p > out.confidence ? c : out.label;
    out.confidence = p > out.confidence ? p : out.confidence;
    if (entropy && few) {
      out.entropy = add_p_log_p(p, out.entropy);
    } else if (entropy) {
      add_compensated(out.entropy, lost, add_p_log_p(p, Real{0}));
    }
  }
  out.entropy = entropy_of_sum(out.entropy);
  out.finite = is_finite(out.class_sum) && is_finite(lowest);
  out.valid = out.finite &&
              !(is_checked<kPlain>(a) && (lowest < Real(-1e-3) || out.confidence > Real(1.001)));
  return out;
}

template <bool kPlain, typename Real>
__device__ __forceinline__ Outcome<Real>
conclude_multilabel(const PassArguments &a, const Tile<Real> &tile, int slot, Real scale) {
  Outcome<Real> out;
  bool outside = false;
  Real lost = 0;
  const bool entropy = wants_entropy(a);
#pragma unroll 1
  for (int c = 0; c < a.classes; ++c) {
    const Real raw = multiply_exact(tile.sum_at(c, slot), scale);
    const Real p = not_negative(raw);
    outside = outside || out_of_range(raw);
    out.class_sum = add_exact(out.class_sum, raw);
    tile.sum_at(c, slot) = p;
    if (entropy) {
      add_compensated(out.entropy, lost, bernoulli_entropy(p > Real{1} ? Real{1} : p));
    }
  }
  out.finite = is_finite(out.class_sum);
  out.valid = out.finite && !(is_checked<kPlain>(a) && outside);
  return out;
}

// Variance and disagreement, which are read from the running sums before those are overwritten.
template <typename Real> struct Spread {
  Real variance = 0;
  Real disagreement = 0;
};

template <bool kPlain, typename Real>
__device__ __forceinline__ Spread<Real> spread_of(const PassArguments &a, const Tile<Real> &tile,
                                                  int slot) {
  Spread<Real> spread;
  const Real scale = static_cast<Real>(a.scale);
  if (wants(a, Map::kVariance)) {
    Real squares = 0;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) {
      const Real p = tile.sum_at(c, slot) * scale;
      squares = fused(p, p, squares);
    }
    const Real total = not_negative(tile.square[slot] * scale - squares);
    spread.variance = total / static_cast<Real>(a.classes);
  }
  if (wants(a, Map::kDisagreement)) {
    const Real inverse = static_cast<Real>(a.inverse_members);
    Real most = 0;
    Real minority = 0;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) {
      const Real share = tile.votes_at(c, slot) * inverse;
      most = larger(most, share);
      minority += share > Real(0.5) ? Real{1} - share : share;
    }
    spread.disagreement =
        is_multilabel<kPlain>(a) ? minority / static_cast<Real>(a.classes) : Real{1} - most;
  }
  return spread;
}

template <bool kPlain, typename Real>
__device__ __forceinline__ void write_class_maps(const PassArguments &a, const Tile<Real> &tile,
                                                 int slot, std::int64_t voxel,
                                                 const Outcome<Real> &out) {
  const Real nan = quiet_nan<Real>();
  const View &mean = a.maps.views[static_cast<int>(Map::kMean)];
  const View &label = a.maps.views[static_cast<int>(Map::kLabel)];
  const View &confidence = a.maps.views[static_cast<int>(Map::kConfidence)];
  if (mean.data != nullptr) {
    const std::int64_t at = offset_of(a.grid, mean.strides, voxel);
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) {
      store_real(mean, at + c * mean.class_stride, out.valid ? tile.sum_at(c, slot) : nan);
    }
  }
  const int planes = is_multilabel<kPlain>(a) ? a.classes : 1;
  if (label.data != nullptr) {
    const std::int64_t at = offset_of(a.grid, label.strides, voxel);
#pragma unroll 1
    for (int c = 0; c < planes; ++c) {
      const int value = is_multilabel<kPlain>(a) ? tile.sum_at(c, slot) > Real(0.5) : out.label;
      store_label(label, at + c * label.class_stride, out.valid ? value : -1);
    }
  }
  if (confidence.data != nullptr) {
    const std::int64_t at = offset_of(a.grid, confidence.strides, voxel);
#pragma unroll 1
    for (int c = 0; c < planes; ++c) {
      Real value = out.confidence;
      if (is_multilabel<kPlain>(a)) {
        const Real p = tile.sum_at(c, slot);
        value = p > Real(0.5) ? p : Real{1} - p;
      }
      store_real(confidence, at + c * confidence.class_stride, out.valid ? value : nan);
    }
  }
}

// Writes the maps of one real number per voxel. This is a loop because computing the offset in a
// strided map takes much code.
template <typename Real>
__device__ __forceinline__ void
write_voxel_maps(const PassArguments &a, const Tile<Real> &tile, int slot, std::int64_t voxel,
                 const Outcome<Real> &out, const Spread<Real> &spread) {
  const Real expected = a.keeps_entropy ? tile.entropy[slot] * static_cast<Real>(a.scale) : Real{0};
  // Of a single member the mutual information is 0, not the rounding error of two equal entropies.
  const Real information = a.inverse_members < 1.0 ? not_negative(out.entropy - expected) : Real{0};
#pragma unroll 1
  for (int map = static_cast<int>(Map::kEntropy); map < kMapCount; ++map) {
    const View &view = a.maps.views[map];
    if (view.data == nullptr) {
      continue;
    }
    Real value = out.entropy;
    value = map == static_cast<int>(Map::kExpectedEntropy) ? expected : value;
    value = not_negative(value); // entropies below 0 are those of probabilities a little beyond 1
    value = map == static_cast<int>(Map::kMutualInformation) ? information : value;
    value = map == static_cast<int>(Map::kVariance) ? spread.variance : value;
    value = map == static_cast<int>(Map::kDisagreement) ? spread.disagreement : value;
    store_real(view, offset_of(a.grid, view.strides, voxel), out.valid ? value : quiet_nan<Real>());
  }
}

// Leaves the probabilities in the tile, where they are read later, and writes the maps.
template <bool kPlain, typename Real>
__device__ __forceinline__ Outcome<Real> finish_voxel(const PassArguments &a,
                                                      const Tile<Real> &tile, int slot) {
  const std::int64_t voxel = tile.first + slot;
  const Spread<Real> spread = spread_of<kPlain>(a, tile, slot);
  Real scale = static_cast<Real>(a.scale);
  if (!kPlain && a.reading.logit_space) {
    activate_mean(a, tile, slot);
    scale = Real{1};
  }
  if (a.normalise && !is_multilabel<kPlain>(a)) {
    normalise_mean<kPlain>(a, tile, slot, scale);
    scale = Real{1};
  }
  const bool keep = a.counting.wanted || wants(a, Map::kMean);
  const Outcome<Real> out = is_multilabel<kPlain>(a)
                                ? conclude_multilabel<kPlain>(a, tile, slot, scale)
                                : conclude_exclusive<kPlain>(a, tile, slot, scale, keep);
  write_class_maps<kPlain>(a, tile, slot, voxel, out);
  write_voxel_maps(a, tile, slot, voxel, out, spread);
  return out;
}

} // namespace fastcal::cuda
