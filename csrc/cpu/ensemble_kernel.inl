// The maps stage on one block of voxels: accumulate a member, finish. Compiled once an instruction
// set, with contraction.

#include "cpu/element.h"
#include "cpu/kernels.h"
#include "cpu/vec_math.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> static inline Vec<Real> not_negative(Vec<Real> x) {
  return x < Real{0} ? Vec<Real>{} : x; // NaN stays
}

template <typename Real> static inline Vec<Real> nan_vector() {
  return splat<Real>(static_cast<Real>(__builtin_nan("")));
}

// ln p with ln 0 = -inf. A rounding error below 0 counts as 0; what is further off is NaN.
template <typename Real> static inline Vec<Real> log_of_probability(Vec<Real> p) {
  constexpr Real kInfinity = static_cast<Real>(__builtin_inf());
  const Vec<Real> log = log2_vector<Real>(p) * Constants<Real>::kLn2 + (p - p); // inf, NaN: NaN
  const Vec<Real> not_positive =
      p < Real{-1e-3} || p != p ? nan_vector<Real>() : splat<Real>(-kInfinity);
  return p > Real{0} ? log : not_positive;
}

template <typename Real>
static void to_logits(Real *tile, std::int64_t pitch, std::int64_t voxels, std::int64_t classes,
                      Activation activation) {
  for (std::int64_t c = 0; c < classes; ++c) {
    for (std::int64_t i = 0; i < voxels; i += Lanes<Real>::kCount) {
      Real *at = tile + c * pitch + i;
      const Vec<Real> p = load(at);
      Vec<Real> z = log_of_probability<Real>(p);
      if (activation == Activation::kSigmoid) {
        // p = 1 becomes a large finite logit: +inf would mean invalid input.
        const Vec<Real> odds = z - log_of_probability<Real>(Real{1} - p);
        z = p < Real{1} || p > Real{1.001} ? odds : splat<Real>(Real{1e30});
      }
      store(at, z);
    }
  }
}

// ---------------------------------------------------------------------------- one member's numbers

template <typename Real> static inline Vec<Real> sigmoid(Vec<Real> z, const ExpScale<Real> &scale) {
  constexpr Real kLargest =
      static_cast<Real>(sizeof(Real) == 4 ? 3.40282347e38 : 1.7976931348623157e308);
  // +inf is invalid input: NaN instead of 1.
  z = z > kLargest ? nan_vector<Real>() : z;
  const Vec<Real> e = exp_vector<Real>(scale, z < Real{0} ? z : -z);
  const Vec<Real> numerator = z < Real{0} ? e : Real{1} + (e - e);
  return numerator / (e + Real{1});
}

// -p log2 p - (1 - p) log2 (1 - p)
template <typename Real> static inline Vec<Real> bernoulli_bits(Vec<Real> p) {
  const Vec<Real> q = Real{1} - p;
  return -(p * log2_vector<Real>(p) + q * log2_vector<Real>(q));
}

template <typename Real>
static inline void add_moments(const Accumulate<Real> &a, std::int64_t at, Vec<Real> p) {
  if (a.square != nullptr) {
    store(a.square + at, load(a.square + at) + p * p * a.weight);
  }
}

template <typename Real>
static inline void add_votes(const Accumulate<Real> &a, std::int64_t i, IntVec<Real> best) {
  for (std::int64_t c = 0; a.votes != nullptr && c < a.classes; ++c) {
    Real *at = a.votes + c * a.pitch + i;
    store(at, load(at) + (best == splat_int<Real>(c) ? splat<Real>(1) : Vec<Real>{}));
  }
}

// entropy += w ln total, four vectors of voxels side by side.
template <typename Real> static void add_logarithms(const Accumulate<Real> &a) {
  const Real factor = Constants<Real>::kLn2 * a.weight;
  in_fours(a.voxels / Lanes<Real>::kCount, [&](auto count, std::int64_t first) {
    constexpr int kCount = decltype(count)::kValue;
    Vec<Real> log[kCount];
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      log[k] = load(a.totals + (first + k) * Lanes<Real>::kCount);
    }
    log2_each<Real, kCount>(log);
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      Real *at = a.entropy + (first + k) * Lanes<Real>::kCount;
      store(at, load(at) + log[k] * factor);
    }
  });
}

// Softmax of one member and its addition to the block. kClasses 0 takes the count at run time and
// keeps the exponentials in the lane scratch instead of registers.
template <typename Real, typename Element, int kClasses, bool kEntropy, bool kMoments>
static void accumulate_softmax(const Accumulate<Real> &a) {
  constexpr int kLocal = kClasses > 0 ? kClasses : 1;
  const std::int64_t classes = kClasses > 0 ? kClasses : a.classes;
  const ExpScale<Real> scale(a.inverse_temperature);
  const Real weight = a.weight;
  const std::int64_t ahead = a.prefetch ? a.voxels : 0;
  const std::int64_t pitch = a.pitch;
  const std::int64_t member_pitch = a.member_pitch;
  const std::int64_t voxels = a.voxels;
  const Element *__restrict member = static_cast<const Element *>(a.member);
  Real *__restrict sum = a.sum;
  Vec<Real> local[kLocal];
  Vec<Real> *const e = kClasses > 0 ? local : reinterpret_cast<Vec<Real> *>(a.lane_scratch);
  const auto each_group = [&](const auto &function) __attribute__((always_inline)) {
    if constexpr (kClasses > 0) {
      in_fours_of<kClasses>(function);
    } else {
      in_fours(classes, function);
    }
  };

  for (std::int64_t i = 0; i < voxels; i += Lanes<Real>::kCount) {
    Vec<Real> top = load_real<Real>(member + i);
    IntVec<Real> best = {};
    each_group([&](auto count, std::int64_t first) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int k = 0; k < decltype(count)::kValue; ++k) {
        const std::int64_t c = first + k;
        const Vec<Real> z = load_real<Real>(member + c * member_pitch + i);
        __builtin_prefetch(member + c * member_pitch + i + ahead, 0, 2);
        if constexpr (kClasses > 0) {
          e[c] = z;
        }
        if constexpr (kMoments) {
          best = z > top ? splat_int<Real>(c) : best;
        }
        top = z > top ? z : top;
      }
    });
    Vec<Real> total = {};
    Vec<Real> total_lost = {};
    Vec<Real> weighted = {};
    Vec<Real> weighted_lost = {};
    each_group([&](auto count, std::int64_t first) __attribute__((always_inline)) {
      constexpr int kCount = decltype(count)::kValue;
      Vec<Real> power[kCount];
      Vec<Real> d[kCount];
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        const std::int64_t c = first + k;
        power[k] = (kClasses > 0 ? e[c] : load_real<Real>(member + c * member_pitch + i)) - top;
      }
      exp_each<Real, kCount>(scale, power, d);
      Vec<Real> part = {};
      Vec<Real> weighted_part = {};
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        e[first + k] = power[k];
        part += power[k];
        if constexpr (kEntropy) {
          weighted_part += power[k] * d[k];
        }
      }
      if constexpr (kClasses > 0) {
        total += part;
        weighted += weighted_part;
      } else {
        add_compensated<Real>(&total, &total_lost, part);
        add_compensated<Real>(&weighted, &weighted_lost, weighted_part);
      }
    });
    const Vec<Real> inverse = reciprocal<Real>(total);
    const Vec<Real> scaled = inverse * weight;
    each_group([&](auto count, std::int64_t first) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int k = 0; k < decltype(count)::kValue; ++k) {
        Real *at = sum + (first + k) * pitch + i;
        store(at, load(at) + e[first + k] * scaled);
      }
    });
    if constexpr (kEntropy) {
      // ln total - sum e d / total, the logarithm later: alone it would wait for its own steps.
      const Vec<Real> rest = weighted * inverse * (scale.inverse_temperature * weight);
      store(a.entropy + i, load(a.entropy + i) - rest);
      store(a.totals + i, total);
    }
    if constexpr (kMoments) {
      for (std::int64_t c = 0; c < classes; ++c) {
        add_moments<Real>(a, c * pitch + i, e[c] * inverse);
      }
      add_votes<Real>(a, i, best);
    }
  }
  if constexpr (kEntropy) {
    add_logarithms<Real>(a);
  }
}

// Classes that do not share a denominator: sigmoid outputs, or probabilities as they are.
template <typename Real, bool kSigmoid, bool kEntropy>
static void accumulate_independent(const Accumulate<Real> &a) {
  const Real *member = static_cast<const Real *>(a.member);
  const ExpScale<Real> scale(a.inverse_temperature);
  for (std::int64_t i = 0; i < a.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> entropy = {};
    Vec<Real> top = {};
    IntVec<Real> best = {};
    for (std::int64_t c = 0; c < a.classes; ++c) {
      Vec<Real> p = load(member + c * a.member_pitch + i);
      if (a.prefetch) {
        __builtin_prefetch(member + c * a.member_pitch + i + a.voxels, 0, 2);
      }
      if constexpr (kSigmoid) {
        p = sigmoid<Real>(p, scale);
      }
      Real *at = a.sum + c * a.pitch + i;
      store(at, load(at) + p * a.weight);
      if constexpr (kEntropy) {
        const Vec<Real> q = p < Real{0} ? Vec<Real>{} : p;
        entropy += a.multilabel ? bernoulli_bits<Real>(q > Real{1} ? splat<Real>(1) : q)
                                : -(q * log2_vector<Real>(q));
      }
      add_moments<Real>(a, c * a.pitch + i, p);
      if (a.votes != nullptr && a.multilabel) {
        Real *votes = a.votes + c * a.pitch + i;
        store(votes, load(votes) + (p > Real{0.5} ? splat<Real>(1) : Vec<Real>{}));
      }
      best = c > 0 && !a.multilabel ? (p > top ? splat_int<Real>(c) : best) : best;
      top = c == 0 || a.multilabel ? p : (p > top ? p : top);
    }
    if constexpr (kEntropy) {
      Real *at = a.entropy + i;
      store(at, load(at) + entropy * (Constants<Real>::kLn2 * a.weight));
    }
    if (!a.multilabel) {
      add_votes<Real>(a, i, best);
    }
  }
}

// Logit space: the sum is of w z / T; only votes look at the member by itself.
template <typename Real> static void accumulate_logits(const Accumulate<Real> &a) {
  const Real *member = static_cast<const Real *>(a.member);
  const Real factor = a.weight * a.inverse_temperature;
  for (std::int64_t i = 0; i < a.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> top = {};
    IntVec<Real> best = {};
    for (std::int64_t c = 0; c < a.classes; ++c) {
      const Vec<Real> z = load(member + c * a.member_pitch + i);
      Real *at = a.sum + c * a.pitch + i;
      store(at, load(at) + z * factor);
      if (a.votes != nullptr && a.multilabel) {
        Real *votes = a.votes + c * a.pitch + i;
        store(votes, load(votes) + (z > Real{0} ? splat<Real>(1) : Vec<Real>{}));
      }
      best = c > 0 ? (z > top ? splat_int<Real>(c) : best) : best;
      top = c == 0 ? z : (z > top ? z : top);
    }
    if (!a.multilabel) {
      add_votes<Real>(a, i, best);
    }
  }
}

template <typename Real> using AccumulateFunction = void (*)(const Accumulate<Real> &);

// Class counts in registers: 2 to 16 for float; double takes the run-time loop.
template <typename Real, typename Element, bool kEntropy, bool kMoments>
static AccumulateFunction<Real> softmax_for(std::int64_t classes) {
  if constexpr (sizeof(Real) == 4) {
    static constexpr AccumulateFunction<Real> kSpecialised[] = {
        accumulate_softmax<Real, Element, 2, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 3, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 4, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 5, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 6, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 7, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 8, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 9, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 10, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 11, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 12, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 13, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 14, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 15, kEntropy, kMoments>,
        accumulate_softmax<Real, Element, 16, kEntropy, kMoments>,
    };
    if (classes >= 2 && classes <= 16) {
      return kSpecialised[classes - 2];
    }
  }
  return accumulate_softmax<Real, Element, 0, kEntropy, kMoments>;
}

template <typename Real, typename Element>
static void softmax_of(bool entropy, const Accumulate<Real> &a) {
  (entropy ? softmax_for<Real, Element, true, false>
           : softmax_for<Real, Element, false, false>)(a.classes)(a);
}

template <typename Real> static void accumulate(const Accumulate<Real> &a) {
  const bool entropy = a.entropy != nullptr;
  const bool moments = a.square != nullptr || a.votes != nullptr;
  if (a.logit_space) {
    accumulate_logits<Real>(a);
  } else if (a.holds == Holds::kProbabilities) {
    entropy ? accumulate_independent<Real, false, true>(a)
            : accumulate_independent<Real, false, false>(a);
  } else if (a.activation == Activation::kSigmoid || a.multilabel) {
    entropy ? accumulate_independent<Real, true, true>(a)
            : accumulate_independent<Real, true, false>(a);
  } else if (moments) {
    (entropy ? softmax_for<Real, Real, true, true>
             : softmax_for<Real, Real, false, true>)(a.classes)(a);
  } else if (a.dtype == Dtype::kFloat16 || a.dtype == Dtype::kBFloat16) {
    if constexpr (sizeof(Real) == 4) {
      a.dtype == Dtype::kFloat16 ? softmax_of<Real, Half>(entropy, a)
                                 : softmax_of<Real, BFloat>(entropy, a);
    }
  } else {
    softmax_of<Real, Real>(entropy, a);
  }
}

// -------------------------------------------------------------------------------------- finish

// Logit space: activates the mean logits into the mean planes.
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

// The planes finish reads as probabilities: the sums times 1 / W, or the mean planes as they are.
template <typename Real> struct Probabilities {
  const Real *data;
  std::int64_t pitch;
  Real scale;

  inline Vec<Real> at(std::int64_t c, std::int64_t i) const {
    return load(data + c * pitch + i) * scale;
  }
};

// Divides by the sum over the classes into the mean planes.
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
    // Two is no probability: the range check that follows sees what was out of range before. What
    // is not finite stays so, and is not out of range.
    const IntVec<Real> flagged =
        f.check_range ? outside & (spread - spread == Vec<Real>{}) : IntVec<Real>{};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> share = not_negative<Real>(from.at(c, i)) / total;
      const Vec<Real> finite = share + (spread - spread);
      store(f.mean + c * f.mean_pitch + i, flagged ? splat<Real>(2) : finite);
    }
  }
}

// What the mean probabilities of one vector of voxels amount to.
template <typename Real> struct VoxelSummary {
  Vec<Real> class_sum;
  Vec<Real> confidence;
  Vec<Real> entropy;
  IntVec<Real> label;
  IntVec<Real> finite;
  IntVec<Real> valid; // finite, and in range where that is checked
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
  if (f.entropy != nullptr) {
    store(f.entropy + i, v.valid ? v.entropy : nan);
  }
  if (f.expected_entropy != nullptr) {
    store(f.expected_entropy + i, v.valid ? load(f.entropy_sum + i) * f.scale : nan);
  }
  if (f.mutual_information != nullptr) {
    // One member tells itself nothing: 0, not the rounding of two equal entropies.
    const Vec<Real> difference = v.entropy - load(f.entropy_sum + i) * f.scale;
    const Vec<Real> information =
        f.inverse_members < Real{1} ? not_negative<Real>(difference) : Vec<Real>{};
    store(f.mutual_information + i, v.valid ? information : nan);
  }
  if (f.variance != nullptr) {
    store(f.variance + i, v.valid ? mean_variance<Real>(f, i) : nan);
  }
  if (f.disagreement != nullptr) {
    store(f.disagreement + i, v.valid ? vote_disagreement<Real>(f, i) : nan);
  }
  if (f.validity != nullptr) {
    store_lanes<Real>(f.validity + i,
                      v.finite ? ~v.valid & splat_int<Real>(3) : splat_int<Real>(1));
  }
  if (f.mean != nullptr && bits_of<Real>(~v.valid) != 0) {
    for (std::int64_t c = 0; c < f.classes; ++c) {
      Real *at = f.mean + c * f.mean_pitch + i;
      store(at, v.valid ? load(at) : nan);
    }
  }
}

// -sum p log2 p alone: when nothing else is asked for, NaN and infinity show in the sum itself.
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
      add_compensated<Real>(&bits, &lost, part);
    });
    const Vec<Real> entropy = bits * -Constants<Real>::kLn2;
    store(f.entropy + i, entropy - entropy == Vec<Real>{} ? entropy : nan_vector<Real>());
  }
}

template <typename Real, bool kEntropy, bool kStore, bool kRange>
static void finish_exclusive(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    VoxelSummary<Real> v = {};
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
        if constexpr (kRange) {
          lowest = p[k] < lowest ? p[k] : lowest;
          p[k] = not_negative<Real>(p[k]);
        }
        if constexpr (kStore) {
          store(f.mean + c * f.mean_pitch + i, p[k]);
        }
        log[k] = p[k];
        v.class_sum += p[k];
        v.label = p[k] > v.confidence ? splat_int<Real>(c) : v.label;
        v.confidence = p[k] > v.confidence ? p[k] : v.confidence;
      }
      if constexpr (kEntropy) {
        log2_each<Real, kCount>(log);
        Vec<Real> part = p[0] * log[0];
#pragma GCC unroll 4
        for (int k = 1; k < kCount; ++k) {
          part += p[k] * log[k];
        }
        add_compensated<Real>(&bits, &lost, part);
      }
    });
    v.finite = v.class_sum - v.class_sum == Vec<Real>{};
    v.valid = v.finite;
    if constexpr (kRange) {
      v.finite &= lowest - lowest == Vec<Real>{};
      v.valid = v.finite & (lowest >= Real{-1e-3}) & (v.confidence <= Real{1.001});
    }
    v.entropy = bits * -Constants<Real>::kLn2;
    write_summary<Real>(f, i, v);
    if (f.confidence != nullptr) {
      store(f.confidence + i, v.valid ? v.confidence : nan_vector<Real>());
    }
    if (f.label != nullptr) {
      store_lanes<Real>(f.label + i, v.valid ? v.label : ~IntVec<Real>{});
    }
    if (f.class_sum != nullptr) {
      store(f.class_sum + i, v.class_sum);
    }
  }
}

template <typename Real>
static void finish_multilabel(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  const bool wants_entropy = f.entropy != nullptr || f.mutual_information != nullptr;
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    VoxelSummary<Real> v = {};
    IntVec<Real> outside = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> raw = mean.at(c, i);
      const Vec<Real> p = not_negative<Real>(raw);
      outside |= (raw < Real{-1e-3}) | (raw > Real{1.001});
      v.class_sum += raw;
      if (f.mean != nullptr) {
        store(f.mean + c * f.mean_pitch + i, p);
      }
      if (wants_entropy) {
        v.entropy += bernoulli_bits<Real>(p > Real{1} ? splat<Real>(1) : p);
      }
    }
    v.finite = v.class_sum - v.class_sum == Vec<Real>{};
    v.valid = f.check_range ? v.finite & ~outside : v.finite;
    v.entropy *= Constants<Real>::kLn2;
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> p = not_negative<Real>(mean.at(c, i));
      const IntVec<Real> positive = p > Real{0.5};
      if (f.label != nullptr) {
        store_lanes<Real>(f.label + c * f.block_pitch + i,
                          v.valid ? positive & splat_int<Real>(1) : ~IntVec<Real>{});
      }
      if (f.confidence != nullptr) {
        store(f.confidence + c * f.block_pitch + i,
              v.valid ? (positive ? p : Real{1} - p) : nan_vector<Real>());
      }
    }
    write_summary<Real>(f, i, v); // last: it may overwrite the mean that was just read
  }
}

template <typename Real, bool kRange>
static void finish_exclusive_for(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  const bool entropy = f.entropy != nullptr || f.mutual_information != nullptr;
  if (f.mean != nullptr && f.mean != mean.data) {
    (entropy ? finish_exclusive<Real, true, true, kRange>
             : finish_exclusive<Real, false, true, kRange>)(f, mean);
  } else {
    (entropy ? finish_exclusive<Real, true, false, kRange>
             : finish_exclusive<Real, false, false, kRange>)(f, mean);
  }
}

template <typename Real> static bool wants_entropy_alone(const FinishBlock<Real> &f) {
  return f.entropy != nullptr && f.mean == nullptr && f.confidence == nullptr &&
         f.label == nullptr && f.expected_entropy == nullptr && f.mutual_information == nullptr &&
         f.variance == nullptr && f.disagreement == nullptr && f.validity == nullptr &&
         !f.check_range;
}

template <typename Real> static void finish(const FinishBlock<Real> &f) {
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
  } else if (wants_entropy_alone(f)) {
    finish_entropy<Real>(f, mean);
  } else if (f.check_range) {
    finish_exclusive_for<Real, true>(f, mean);
  } else {
    finish_exclusive_for<Real, false>(f, mean);
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
