// The second half of the maps stage on one block of voxels: the sums over the members become maps.
// Compiled once per instruction set, with contraction.

#include "cpu/activation.h"
#include "cpu/kernels.h"

namespace fastcal::cpu::FASTCAL_ISA {

// Where logits were averaged: activates their mean into the mean planes.
template <typename Real> static void activate_mean(const FinishBlock<Real> &f) {
  const ExpScale<Real> scale(Real{1});
  Vec<Real> *const e = reinterpret_cast<Vec<Real> *>(f.lane_scratch);
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    if (f.activation == Activation::kSigmoid || f.multilabel) {
      for (std::int64_t c = 0; c < f.classes; ++c) {
        const Vec<Real> z = load(f.sum + c * f.pitch + i) * f.scale;
        store(f.mean + c * f.mean_pitch + i, sigmoid<Real>(z, scale));
      }
      continue;
    }
    Vec<Real> top = load(f.sum + i) * f.scale;
    for (std::int64_t c = 0; c < f.classes; ++c) {
      e[c] = load(f.sum + c * f.pitch + i) * f.scale;
      top = e[c] > top ? e[c] : top;
    }
    Vec<Real> total = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      e[c] = exp_vector<Real>(scale, e[c] - top);
      total += e[c];
    }
    const Vec<Real> inverse = Real{1} / total;
    for (std::int64_t c = 0; c < f.classes; ++c) {
      store(f.mean + c * f.mean_pitch + i, e[c] * inverse);
    }
  }
}

// The planes that finish reads as probabilities: the sums times 1 / W, or the mean planes as they
// are.
template <typename Real> struct Probabilities {
  const Real *data;
  std::int64_t pitch;
  Real scale;

  inline Vec<Real> at(std::int64_t c, std::int64_t i) const {
    return load(data + c * pitch + i) * scale;
  }
};

// Divides by the sum over the classes, and writes to the mean planes.
template <typename Real>
static void normalise_mean(const FinishBlock<Real> &f, const Probabilities<Real> &from) {
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> total = {};
    Vec<Real> spread = {};
    IntVec<Real> outside = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> p = from.at(c, i);
      spread += p;
      total += not_negative<Real>(p);
      outside |= (p < Real{-1e-3}) | (p > Real{1.001});
    }
    // 2 is not a probability: the range check that follows sees by it what was out of range before.
    // What is not finite stays so, and does not count as out of range.
    const IntVec<Real> flagged =
        f.check_range ? outside & (spread - spread == Vec<Real>{}) : IntVec<Real>{};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> share = not_negative<Real>(from.at(c, i)) / total;
      const Vec<Real> finite = share + (spread - spread);
      store(f.mean + c * f.mean_pitch + i, flagged ? splat<Real>(2) : finite);
    }
  }
}

// What follows from the mean probabilities of one vector of voxels.
template <typename Real> struct VoxelSummary {
  Vec<Real> class_sum;
  Vec<Real> confidence;
  Vec<Real> entropy;
  IntVec<Real> label;
  Mask<Real> finite;
  Mask<Real> valid; // finite, and in range where that is checked
};

template <typename Real>
static inline Vec<Real> mean_variance(const FinishBlock<Real> &f, std::int64_t i) {
  Vec<Real> total = {};
  for (std::int64_t c = 0; c < f.classes; ++c) {
    const Vec<Real> p = load(f.sum + c * f.pitch + i) * f.scale;
    total += not_negative<Real>(load(f.square_sum + c * f.pitch + i) * f.scale - p * p);
  }
  return total / static_cast<Real>(f.classes);
}

template <typename Real>
static inline Vec<Real> vote_disagreement(const FinishBlock<Real> &f, std::int64_t i) {
  Vec<Real> most = {};
  Vec<Real> minority = {};
  for (std::int64_t c = 0; c < f.classes; ++c) {
    const Vec<Real> share = load(f.votes + c * f.pitch + i) * f.inverse_members;
    most = share > most ? share : most;
    minority += share > Real{0.5} ? Real{1} - share : share;
  }
  return f.multilabel ? minority / static_cast<Real>(f.classes) : Real{1} - most;
}

template <typename Real>
static inline __attribute__((always_inline)) void
write_summary(const FinishBlock<Real> &f, std::int64_t i, const VoxelSummary<Real> &v) {
  const Vec<Real> nan = nan_vector<Real>();
  // Entropies below 0 are those of probabilities a little beyond 1.
  if (f.entropy != nullptr) {
    store(f.entropy + i, v.valid.choose(not_negative<Real>(v.entropy), nan));
  }
  if (f.expected_entropy != nullptr) {
    const Vec<Real> expected = not_negative<Real>(load(f.entropy_sum + i) * f.scale);
    store(f.expected_entropy + i, v.valid.choose(expected, nan));
  }
  if (f.mutual_information != nullptr) {
    // Of a single member the mutual information is 0, not the rounding error of two equal
    // entropies.
    const Vec<Real> difference = v.entropy - load(f.entropy_sum + i) * f.scale;
    const Vec<Real> information =
        f.inverse_members < Real{1} ? not_negative<Real>(difference) : Vec<Real>{};
    store(f.mutual_information + i, v.valid.choose(information, nan));
  }
  if (f.variance != nullptr) {
    store(f.variance + i, v.valid.choose(mean_variance<Real>(f, i), nan));
  }
  if (f.disagreement != nullptr) {
    store(f.disagreement + i, v.valid.choose(vote_disagreement<Real>(f, i), nan));
  }
  if (f.validity != nullptr) {
    const IntVec<Real> in_range = v.valid.choose(IntVec<Real>{}, splat_int<Real>(3));
    store_lanes<Real>(f.validity + i, v.finite.choose(in_range, splat_int<Real>(1)));
  }
  if (f.mean != nullptr && !v.valid.all()) {
    for (std::int64_t c = 0; c < f.classes; ++c) {
      Real *at = f.mean + c * f.mean_pitch + i;
      store(at, v.valid.choose(load(at), nan));
    }
  }
}

// -sum p log2 p and nothing else. NaN and infinity show in the sum itself.
template <typename Real>
static void finish_entropy(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> bits = {};
    Vec<Real> lost = {};
    in_fours(f.classes, [&](auto count, std::int64_t first) __attribute__((always_inline)) {
      constexpr int kCount = decltype(count)::kValue;
      Vec<Real> p[kCount];
      Vec<Real> log[kCount];
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        log[k] = p[k] = mean.at(first + k, i);
      }
      log2_each<Real, kCount>(log);
      Vec<Real> part = p[0] * log[0];
#pragma GCC unroll 4
      for (int k = 1; k < kCount; ++k) {
        part += p[k] * log[k];
      }
      if (first == 0) {
        bits = part;
      } else {
        add_compensated<Real>(&bits, &lost, part);
      }
    });
    const Vec<Real> entropy = Real{0} - bits * Constants<Real>::kLn2;
    const Vec<Real> finite = not_negative<Real>(entropy) + (entropy - entropy);
    store(f.entropy + i, finite);
  }
}

// True when a probability was below 0.
template <typename Real, bool kEntropy, bool kStore, bool kRange>
static bool finish_exclusive(const FinishBlock<Real> &block, const Probabilities<Real> &planes) {
  constexpr Real kInfinity = static_cast<Real>(__builtin_inf());
  const FinishBlock<Real> f = block; // a copy, which the stores below cannot change
  const Probabilities<Real> mean = planes;
  Vec<Real> lowest_of_all = {};
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    VoxelSummary<Real> v = {};
    IntVec<Real> label = {};
    Vec<Real> lowest = {};
    Vec<Real> bits = {};
    Vec<Real> lost = {};
    in_fours(f.classes, [&](auto count, std::int64_t first) __attribute__((always_inline)) {
      constexpr int kCount = decltype(count)::kValue;
      Vec<Real> p[kCount];
      Vec<Real> log[kCount];
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        const std::int64_t c = first + k;
        p[k] = mean.at(c, i);
        if (f.prefetch) {
          __builtin_prefetch(f.sum + c * f.pitch + i + f.voxels, 0, 2); // of the next block
        }
        if constexpr (kRange) {
          lowest = p[k] < lowest ? p[k] : lowest;
          p[k] = not_negative<Real>(p[k]);
        }
        if constexpr (kStore) {
          store(f.mean + c * f.mean_pitch + i, p[k]);
        }
        log[k] = p[k];
        v.class_sum += p[k];
        const Mask<Real> larger = Mask<Real>::above(p[k], v.confidence);
        v.label = larger.choose(label, v.label);
        label += 1;
        v.confidence = larger.choose(p[k], v.confidence);
      }
      if constexpr (kEntropy) {
        log2_each<Real, kCount>(log);
        Vec<Real> part = p[0] * log[0];
#pragma GCC unroll 4
        for (int k = 1; k < kCount; ++k) {
          part += p[k] * log[k];
        }
        if (first == 0) {
          bits = part;
        } else {
          add_compensated<Real>(&bits, &lost, part);
        }
      }
    });
    v.finite = Mask<Real>::above(splat<Real>(kInfinity), v.class_sum);
    if constexpr (kRange) {
      lowest_of_all = lowest < lowest_of_all ? lowest : lowest_of_all;
      v.finite = v.finite & Mask<Real>::above(lowest, splat<Real>(-kInfinity));
      v.valid = v.finite.without(Mask<Real>::above(splat<Real>(Real{-1e-3}), lowest) |
                                 Mask<Real>::above(v.confidence, splat<Real>(Real{1.001})));
    } else {
      v.valid = v.finite;
    }
    v.entropy = Real{0} - bits * Constants<Real>::kLn2;
    write_summary<Real>(f, i, v);
    if (f.confidence != nullptr) {
      store(f.confidence + i, v.valid.choose(v.confidence, nan_vector<Real>()));
    }
    if (f.label != nullptr) {
      store_lanes<Real>(f.label + i, v.valid.choose(v.label, ~IntVec<Real>{}));
    }
    if (f.class_sum != nullptr) {
      store(f.class_sum + i, v.class_sum);
    }
  }
  return bits_of<Real>(lowest_of_all < Vec<Real>{}) != 0;
}

template <typename Real>
static void finish_multilabel(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  const bool wants_entropy = f.entropy != nullptr || f.mutual_information != nullptr;
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    VoxelSummary<Real> v = {};
    Mask<Real> outside = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> raw = mean.at(c, i);
      const Vec<Real> p = not_negative<Real>(raw);
      outside = outside | Mask<Real>::above(splat<Real>(Real{-1e-3}), raw) |
                Mask<Real>::above(raw, splat<Real>(Real{1.001}));
      v.class_sum += raw;
      if (f.mean != nullptr) {
        store(f.mean + c * f.mean_pitch + i, p);
      }
      if (wants_entropy) {
        v.entropy += bernoulli_bits<Real>(p > Real{1} ? splat<Real>(1) : p);
      }
    }
    v.finite = Mask<Real>::above(splat<Real>(Real{1}), v.class_sum - v.class_sum);
    v.valid = f.check_range ? v.finite.without(outside) : v.finite;
    v.entropy *= Constants<Real>::kLn2;
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> p = not_negative<Real>(mean.at(c, i));
      const Mask<Real> positive = Mask<Real>::above(p, splat<Real>(Real{0.5}));
      if (f.label != nullptr) {
        store_lanes<Real>(
            f.label + c * f.block_pitch + i,
            v.valid.choose(positive.choose(splat_int<Real>(1), IntVec<Real>{}), ~IntVec<Real>{}));
      }
      if (f.confidence != nullptr) {
        store(f.confidence + c * f.block_pitch + i,
              v.valid.choose(positive.choose(p, Real{1} - p), nan_vector<Real>()));
      }
    }
    write_summary<Real>(f, i, v); // last: it may overwrite the mean that was just read
  }
}

// True when the mean was written to its planes, false when the sums hold the same numbers.
template <typename Real, bool kRange>
static bool finish_exclusive_for(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  const bool entropy = f.entropy != nullptr || f.mutual_information != nullptr;
  const auto leave = entropy ? finish_exclusive<Real, true, false, kRange>
                             : finish_exclusive<Real, false, false, kRange>;
  if (f.mean == nullptr || f.mean == mean.data) {
    leave(f, mean);
    return true;
  }
  if (f.sum_serves) {
    FinishBlock<Real> reading = f;
    reading.mean = nullptr;
    if (!leave(reading, mean)) {
      return false;
    }
  }
  (entropy ? finish_exclusive<Real, true, true, kRange>
           : finish_exclusive<Real, false, true, kRange>)(f, mean);
  return true;
}

template <typename Real> static bool wants_only_entropy(const FinishBlock<Real> &f) {
  return f.entropy != nullptr && f.mean == nullptr && f.confidence == nullptr &&
         f.label == nullptr && f.expected_entropy == nullptr && f.mutual_information == nullptr &&
         f.variance == nullptr && f.disagreement == nullptr && f.validity == nullptr &&
         !f.check_range;
}

template <typename Real> static bool finish(const FinishBlock<Real> &f) {
  Probabilities<Real> mean{f.sum, f.pitch, f.scale};
  if (f.logit_space) {
    activate_mean<Real>(f);
    mean = {f.mean, f.mean_pitch, Real{1}};
  }
  if (f.normalise && !f.multilabel) {
    normalise_mean<Real>(f, mean);
    mean = {f.mean, f.mean_pitch, Real{1}};
  }
  if (f.multilabel) {
    finish_multilabel<Real>(f, mean);
    return true;
  }
  if (wants_only_entropy(f)) {
    finish_entropy<Real>(f, mean);
    return true;
  }
  return f.check_range ? finish_exclusive_for<Real, true>(f, mean)
                       : finish_exclusive_for<Real, false>(f, mean);
}

} // namespace fastcal::cpu::FASTCAL_ISA
