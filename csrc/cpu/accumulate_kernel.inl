// The first half of the maps stage on one block of voxels: adds a member to the sums. Compiled once
// per instruction set, with contraction.

#include "cpu/activation.h"
#include "cpu/element.h"
#include "cpu/kernels.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real>
static void to_logits(Real *tile, std::int64_t pitch, std::int64_t voxels, std::int64_t classes,
                      Activation activation) {
  for (std::int64_t c = 0; c < classes; ++c) {
    for (std::int64_t i = 0; i < voxels; i += Lanes<Real>::kCount) {
      Real *at = tile + c * pitch + i;
      const Vec<Real> p = load(at);
      Vec<Real> z = log_of_probability<Real>(p);
      if (activation == Activation::kSigmoid) {
        // p = 1 becomes a large finite logit, because +inf would mean invalid input.
        const Vec<Real> odds = z - log_of_probability<Real>(Real{1} - p);
        z = (p >= Real{1}) & (p <= Real{1.001}) ? splat<Real>(Real{1e30}) : odds;
      }
      store(at, z);
    }
  }
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

// entropy += w ln total, for four vectors of voxels at a time.
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

// The planes of a member in memory, and how far ahead to prefetch them.
template <typename Element> struct MemberPlanes {
  const Element *data;
  std::int64_t pitch;
  std::int64_t ahead;

  inline const Element *at(std::int64_t c, std::int64_t i) const { return data + c * pitch + i; }
};

// The largest logit of the voxels at i, and the lowest class that has it. Classes in registers are
// kept in e.
template <typename Real, int kClasses, bool kMoments, typename Element>
static inline __attribute__((always_inline)) Vec<Real> top_of(const MemberPlanes<Element> &member,
                                                              std::int64_t classes, std::int64_t i,
                                                              Vec<Real> *e, IntVec<Real> *best) {
  Vec<Real> top = load_real<Real>(member.at(0, i));
  const auto look = [&](auto count, std::int64_t first) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int k = 0; k < decltype(count)::kValue; ++k) {
      const std::int64_t c = first + k;
      const Vec<Real> z = load_real<Real>(member.at(c, i));
      __builtin_prefetch(member.at(c, i) + member.ahead, 0, 2);
      if constexpr (kClasses > 0) {
        e[c] = z;
      }
      if constexpr (kMoments) {
        *best = z > top ? splat_int<Real>(c) : *best;
      }
      top = z > top ? z : top;
    }
  };
  over_classes<kClasses>(classes, look);
  return top;
}

// Sums over the classes of one vector of voxels.
template <typename Real> struct Exponentials {
  Vec<Real> total = {};
  Vec<Real> weighted = {}; // of e^(d / T) d, where the entropy is wanted
};

// Sets e[c] to e^(d / T) of the voxels at i, where d is the logit minus the largest one.
template <typename Real, int kClasses, bool kEntropy, typename Element>
static inline __attribute__((always_inline)) Exponentials<Real>
exponentiate(const MemberPlanes<Element> &member, const ExpScale<Real> &scale, std::int64_t classes,
             std::int64_t i, Vec<Real> top, Vec<Real> *e) {
  Exponentials<Real> sums;
  Exponentials<Real> lost;
  const auto add_group = [&](auto count, std::int64_t first) __attribute__((always_inline)) {
    constexpr int kCount = decltype(count)::kValue;
    Vec<Real> power[kCount];
    Vec<Real> d[kCount];
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      const std::int64_t c = first + k;
      power[k] = (kClasses > 0 ? e[c] : load_real<Real>(member.at(c, i))) - top;
    }
    exp_each<Real, kCount>(scale, power, d);
    Exponentials<Real> part;
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      e[first + k] = power[k];
      part.total += power[k];
      if constexpr (kEntropy) {
        part.weighted += power[k] * d[k];
      }
    }
    if constexpr (kClasses > 0) {
      sums.total += part.total;
      sums.weighted += part.weighted;
    } else {
      add_compensated<Real>(&sums.total, &lost.total, part.total);
      add_compensated<Real>(&sums.weighted, &lost.weighted, part.weighted);
    }
  };
  over_classes<kClasses>(classes, add_group);
  return sums;
}

// Adds the softmax of one member to the sums of the block. With kClasses 0 the number of classes is
// known at run time only, and the exponentials are kept in the lane scratch instead of registers.
template <typename Real, typename Element, int kClasses, bool kEntropy, bool kMoments>
static void accumulate_softmax(const Accumulate<Real> &a) {
  constexpr int kLocal = kClasses > 0 ? kClasses : 1;
  const std::int64_t classes = kClasses > 0 ? kClasses : a.classes;
  const ExpScale<Real> scale(a.inverse_temperature);
  const Real weight = a.weight;
  const std::int64_t pitch = a.pitch;
  const std::int64_t voxels = a.voxels;
  const MemberPlanes<Element> member{static_cast<const Element *>(a.member), a.member_pitch,
                                     a.prefetch ? a.voxels : 0};
  Real *__restrict sum = a.sum;
  Vec<Real> local[kLocal];
  Vec<Real> *const e = kClasses > 0 ? local : reinterpret_cast<Vec<Real> *>(a.lane_scratch);

  for (std::int64_t i = 0; i < voxels; i += Lanes<Real>::kCount) {
    IntVec<Real> best = {};
    const Vec<Real> top = top_of<Real, kClasses, kMoments>(member, classes, i, e, &best);
    const Exponentials<Real> sums =
        exponentiate<Real, kClasses, kEntropy>(member, scale, classes, i, top, e);
    const Vec<Real> inverse = reciprocal<Real>(sums.total);
    const Vec<Real> scaled = inverse * weight;
    const auto add_scaled = [&](auto count, std::int64_t first) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int k = 0; k < decltype(count)::kValue; ++k) {
        Real *at = sum + (first + k) * pitch + i;
        store(at, load(at) + e[first + k] * scaled);
      }
    };
    over_classes<kClasses>(classes, add_scaled);
    if constexpr (kEntropy) {
      // The entropy is ln total - sum e d / total. The logarithms follow for several vectors at
      // once, since the steps of a single one would wait for each other.
      const Vec<Real> rest = sums.weighted * inverse * (scale.inverse_temperature * weight);
      store(a.entropy + i, load(a.entropy + i) - rest);
      store(a.totals + i, sums.total);
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

// Adds classes that do not share a denominator: outputs of a sigmoid, or probabilities as they are.
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
      } else {
        p = checked_probability<Real>(p);
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

// Adds w z / T where logits are averaged. Only the votes look at the member by itself.
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

// Floats of 2 to 16 classes stay in registers; doubles and other numbers of classes take the loop
// with a count known at run time.
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

} // namespace fastcal::cpu::FASTCAL_ISA
