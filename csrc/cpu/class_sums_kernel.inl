// Sums of probabilities and likelihoods per class over one block of voxels, and the gradient by the
// logits of a loss that is a function of them. Compiled once per instruction set, with contraction.
#pragma once

#include "cpu/activation.h"
#include "cpu/loss_kernels.h"

namespace fastcal::cpu::FASTCAL_ISA {

// A row of the scratch: one vector per class.
template <typename V, typename Real>
static inline V *lane_row(const LogitBlock<Real> &b, std::int64_t row) {
  return reinterpret_cast<V *>(b.lanes + row * b.classes * kLaneMultiple);
}

// This many voxels of a lane are added up in Real before the sum goes on in double. Equal terms are
// rounded the same way each time, and a thousand of them in a row would be off by 1e-6.
constexpr std::int64_t kRun = 16;

// A sum over voxels, in double where Real is float, of at most eight lanes.
static inline void widen(Doubles *to, Vec<float> sum) { *to += low_half(sum) + high_half(sum); }
static inline void widen(Doubles *to, Vec<double> sum) { *to += sum; }

static inline double sum_of(Doubles lanes) {
  double sum = 0.0;
  for (std::int64_t lane = 0; lane < Lanes<double>::kCount; ++lane) {
    sum += lanes[lane];
  }
  return sum;
}

template <typename Real>
static void count_references(const LogitBlock<Real> &b, double *__restrict counts) {
  for (std::int64_t c = 0; c < b.classes; ++c) {
    const std::int32_t label = static_cast<std::int32_t>(c) + b.first_label;
    std::int32_t count = 0;
    for (std::int64_t v = 0; v < b.voxels; ++v) {
      count += b.target[v] == label ? 1 : 0;
    }
    counts[c] += count;
  }
}

// The softmax of the voxels at i: sets e[c] to e^(z - top), and returns the sum of these.
template <typename Real, int kClasses>
static inline __attribute__((always_inline)) Vec<Real>
exponentials(const LogitBlock<Real> &b, std::int64_t i, const ExpScale<Real> &scale, Vec<Real> *e,
             Vec<Real> *top_out) {
  const std::int64_t classes = kClasses > 0 ? kClasses : b.classes;
  Vec<Real> top = load(b.logits + i);
  e[0] = top;
#pragma GCC unroll 8
  for (std::int64_t c = 1; c < classes; ++c) {
    const Vec<Real> z = load(b.logits + c * b.pitch + i);
    e[c] = z;
    top = z > top ? z : top;
  }
  Vec<Real> total = {};
  Vec<Real> lost = {};
  const auto group = [&](auto count, std::int64_t first) __attribute__((always_inline)) {
    constexpr int kCount = decltype(count)::kValue;
    Vec<Real> power[kCount];
    Vec<Real> clamped[kCount];
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      power[k] = e[first + k] - top;
    }
    exp_each<Real, kCount>(scale, power, clamped);
    Vec<Real> part = {};
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      e[first + k] = power[k];
      part += power[k];
    }
    if constexpr (kClasses > 0) {
      total += part;
    } else {
      add_compensated<Real>(&total, &lost, part);
    }
  };
  over_classes<kClasses>(classes, group);
  *top_out = top;
  return total;
}

// The sums of a block in double, in the scratch.
template <typename Real> class WideSums {
public:
  inline WideSums(const LogitBlock<Real> &block, std::int64_t classes)
      : block_(block), classes_(classes) {
    for (std::int64_t row = 0; row < sum::kRows; ++row) {
      for (std::int64_t c = 0; c < classes_; ++c) {
        (*this)(row)[c] = Doubles{};
      }
    }
  }

  inline Doubles *operator()(std::int64_t row) const {
    return lane_row<Doubles>(block_, kFirstRow + row);
  }

  inline void add_to(double *sums) const {
    for (std::int64_t row = 0; row < sum::kRows; ++row) {
      for (std::int64_t c = 0; c < classes_; ++c) {
        sums[row * classes_ + c] += sum_of((*this)(row)[c]);
      }
    }
  }

private:
  static constexpr std::int64_t kFirstRow = 6; // rows before it hold vectors of Real

  const LogitBlock<Real> &block_;
  const std::int64_t classes_;
};

// With kClasses 0 the number of classes is known at run time only, and the sums are kept in the
// scratch.
template <typename Real, int kClasses, bool kOverlaps, bool kLikelihood>
static void softmax_sums(const ClassSums<Real> &s) {
  constexpr int kLocal = kClasses > 0 ? kClasses : 1;
  const LogitBlock<Real> &b = s.block;
  const std::int64_t classes = kClasses > 0 ? kClasses : b.classes;
  const ExpScale<Real> scale(Real{1});
  Vec<Real> e_local[kLocal];
  Vec<Real> overlap_local[kLocal];
  Vec<Real> predicted_local[kLocal];
  Vec<Real> squared_local[kLocal];
  Vec<Real> nll_local[kLocal];
  Vec<Real> *const e = kClasses > 0 ? e_local : lane_row<Vec<Real>>(b, 0);
  Vec<Real> *const overlap = kClasses > 0 ? overlap_local : lane_row<Vec<Real>>(b, 1);
  Vec<Real> *const predicted = kClasses > 0 ? predicted_local : lane_row<Vec<Real>>(b, 2);
  Vec<Real> *const squared = kClasses > 0 ? squared_local : lane_row<Vec<Real>>(b, 3);
  Vec<Real> *const nll = kClasses > 0 ? nll_local : lane_row<Vec<Real>>(b, 4);
  Vec<Real> *const rest = lane_row<Vec<Real>>(b, 5);
  const WideSums<Real> wide(b, classes);

  constexpr std::int64_t kStep = kRun * Lanes<Real>::kCount;
  for (std::int64_t first = 0; first < b.voxels; first += kStep) {
    const std::int64_t end = first + kStep < b.voxels ? first + kStep : b.voxels;
#pragma GCC unroll 8
    for (std::int64_t c = 0; c < classes; ++c) {
      overlap[c] = predicted[c] = squared[c] = nll[c] = Vec<Real>{};
    }
    for (std::int64_t c = 0; s.wanted.rest && c < classes; ++c) {
      rest[c] = Vec<Real>{};
    }
    for (std::int64_t i = first; i < end; i += Lanes<Real>::kCount) {
      const IntVec<Real> target = load_lanes<Real>(b.target + i);
      const Mask<Real> dropped = Mask<Real>::equal(target, splat_int<Real>(-1));
      Vec<Real> top;
      const Vec<Real> total = exponentials<Real, kClasses>(b, i, scale, e, &top);
      if constexpr (kOverlaps) {
        const Vec<Real> inverse = reciprocal<Real>(total);
#pragma GCC unroll 8
        for (std::int64_t c = 0; c < classes; ++c) {
          const Vec<Real> p = dropped.choose(Vec<Real>{}, e[c] * inverse);
          const Mask<Real> is_target = Mask<Real>::equal(target, splat_int<Real>(c));
          overlap[c] += is_target.choose(p, Vec<Real>{});
          predicted[c] += p;
          squared[c] += p * p;
        }
      }
      if constexpr (kLikelihood) {
        const Vec<Real> log_total = log2_vector<Real>(total) * Constants<Real>::kLn2;
#pragma GCC unroll 8
        for (std::int64_t c = 0; c < classes; ++c) {
          const Vec<Real> lost = log_total + (top - load(b.logits + c * b.pitch + i));
          const Mask<Real> is_target = Mask<Real>::equal(target, splat_int<Real>(c));
          nll[c] += is_target.choose(lost, Vec<Real>{});
          if (s.wanted.rest) {
            rest[c] += dropped.choose(Vec<Real>{}, lost);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (std::int64_t c = 0; c < classes; ++c) {
      if constexpr (kOverlaps) {
        widen(wide(sum::kOverlap) + c, overlap[c]);
        widen(wide(sum::kPredicted) + c, predicted[c]);
        widen(wide(sum::kSquared) + c, squared[c]);
      }
      if constexpr (kLikelihood) {
        widen(wide(sum::kNll) + c, nll[c]);
      }
    }
    for (std::int64_t c = 0; s.wanted.rest && c < classes; ++c) {
      widen(wide(sum::kRest) + c, rest[c]);
    }
  }

  wide.add_to(s.sums);
}

// d loss / d z_k = p_k (g_k - sum_j p_j g_j) + E_y (p_k - y_k) + S p_k - S_k, where g is the
// derivative of the loss by p, E that by the likelihood, S_k that by the rest, and S the sum of S_k
// over the classes.
template <typename Real, int kClasses, bool kOverlaps, bool kLikelihood>
static void softmax_gradient(const ClassGradient<Real> &s) {
  constexpr int kLocal = kClasses > 0 ? kClasses : 1;
  const LogitBlock<Real> &b = s.block;
  const std::int64_t classes = kClasses > 0 ? kClasses : b.classes;
  const ExpScale<Real> scale(Real{1});
  const Real *__restrict overlap = s.factors + sum::kOverlap * classes;
  const Real *__restrict predicted = s.factors + sum::kPredicted * classes;
  const Real *__restrict squared = s.factors + sum::kSquared * classes;
  const Real *__restrict nll = s.factors + sum::kNll * classes;
  const Real *__restrict rest = s.factors + sum::kRest * classes;
  Real rest_sum = 0;
  for (std::int64_t c = 0; kLikelihood && c < classes; ++c) {
    rest_sum += rest[c];
  }
  Vec<Real> p_local[kLocal];
  Vec<Real> slope_local[kLocal];
  Vec<Real> *const p = kClasses > 0 ? p_local : lane_row<Vec<Real>>(b, 0);
  Vec<Real> *const slope = kClasses > 0 ? slope_local : lane_row<Vec<Real>>(b, 1);

  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    const IntVec<Real> target = load_lanes<Real>(b.target + i);
    const Mask<Real> dropped = Mask<Real>::equal(target, splat_int<Real>(-1));
    Vec<Real> top;
    const Vec<Real> total = exponentials<Real, kClasses>(b, i, scale, p, &top);
    const Vec<Real> inverse = reciprocal<Real>(total);
    Vec<Real> common = splat<Real>(rest_sum);
    Vec<Real> hit = {};
#pragma GCC unroll 8
    for (std::int64_t c = 0; c < classes; ++c) {
      p[c] *= inverse;
      const Mask<Real> is_target = Mask<Real>::equal(target, splat_int<Real>(c));
      if constexpr (kOverlaps) {
        const Vec<Real> shared = is_target.choose(splat<Real>(overlap[c]), Vec<Real>{});
        slope[c] = p[c] * (Real{2} * squared[c]) + (shared + predicted[c]);
        common -= p[c] * slope[c];
      }
      if constexpr (kLikelihood) {
        hit = is_target.choose(splat<Real>(nll[c]), hit);
      }
    }
    common += hit;
#pragma GCC unroll 8
    for (std::int64_t c = 0; c < classes; ++c) {
      const Vec<Real> factor = kOverlaps ? slope[c] + common : common;
      Vec<Real> value = p[c] * factor;
      if constexpr (kLikelihood) {
        const Mask<Real> is_target = Mask<Real>::equal(target, splat_int<Real>(c));
        value = (value - rest[c]) - is_target.choose(hit, Vec<Real>{});
      }
      store(s.gradient + c * b.tile_pitch + i, dropped.choose(Vec<Real>{}, value));
    }
  }
}

// p, and ln (1 + e^-|z|), from which both likelihoods follow.
template <typename Real>
static inline Vec<Real> sigmoid_and_tail(Vec<Real> z, const ExpScale<Real> &scale,
                                         Vec<Real> *tail) {
  const Vec<Real> e = exp_vector<Real>(scale, z < Real{0} ? z : -z);
  *tail = log2_vector<Real>(e + Real{1}) * Constants<Real>::kLn2;
  return (z < Real{0} ? e : Real{1} + (e - e)) / (e + Real{1});
}

template <typename Real> static void sigmoid_sums(const ClassSums<Real> &s) {
  const LogitBlock<Real> &b = s.block;
  const ExpScale<Real> scale(Real{1});
  for (std::int64_t c = 0; c < b.classes; ++c) {
    const Real *logits = b.logits + c * b.pitch;
    Doubles wide[sum::kRows] = {};
    constexpr std::int64_t kStep = kRun * Lanes<Real>::kCount;
    for (std::int64_t first = 0; first < b.voxels; first += kStep) {
      const std::int64_t end = first + kStep < b.voxels ? first + kStep : b.voxels;
      Vec<Real> overlap = {};
      Vec<Real> predicted = {};
      Vec<Real> squared = {};
      Vec<Real> nll = {};
      Vec<Real> rest = {};
      for (std::int64_t i = first; i < end; i += Lanes<Real>::kCount) {
        const IntVec<Real> target = load_lanes<Real>(b.target + i);
        const Mask<Real> dropped = Mask<Real>::equal(target, splat_int<Real>(-1));
        const Mask<Real> is_target = Mask<Real>::equal(target, splat_int<Real>(c + b.first_label));
        const Vec<Real> z = load(logits + i);
        Vec<Real> tail;
        const Vec<Real> p = dropped.choose(Vec<Real>{}, sigmoid_and_tail<Real>(z, scale, &tail));
        overlap += is_target.choose(p, Vec<Real>{});
        predicted += p;
        squared += p * p;
        // ln (1 + e^-z) = max(-z, 0) + tail, ln (1 + e^z) = max(z, 0) + tail
        nll += is_target.choose((z < Real{0} ? -z : Vec<Real>{}) + tail, Vec<Real>{});
        const Vec<Real> other = (z > Real{0} ? z : Vec<Real>{}) + tail;
        rest += dropped.choose(Vec<Real>{}, is_target.choose(Vec<Real>{}, other));
      }
      widen(wide + sum::kOverlap, overlap);
      widen(wide + sum::kPredicted, predicted);
      widen(wide + sum::kSquared, squared);
      widen(wide + sum::kNll, nll);
      widen(wide + sum::kRest, rest);
    }
    for (std::int64_t row = 0; row < sum::kRows; ++row) {
      s.sums[row * b.classes + c] += sum_of(wide[row]);
    }
  }
}

template <typename Real> static void sigmoid_gradient(const ClassGradient<Real> &s) {
  const LogitBlock<Real> &b = s.block;
  const ExpScale<Real> scale(Real{1});
  for (std::int64_t c = 0; c < b.classes; ++c) {
    const auto factor = [&](std::int64_t row) { return s.factors[row * b.classes + c]; };
    const Real predicted = factor(sum::kPredicted);
    const Vec<Real> overlap = splat<Real>(factor(sum::kOverlap));
    const Real squared = Real{2} * factor(sum::kSquared);
    const Real nll = factor(sum::kNll);
    const Real rest = factor(sum::kRest);
    for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
      const IntVec<Real> target = load_lanes<Real>(b.target + i);
      const Mask<Real> dropped = Mask<Real>::equal(target, splat_int<Real>(-1));
      const Mask<Real> is_target = Mask<Real>::equal(target, splat_int<Real>(c + b.first_label));
      const Vec<Real> z = load(b.logits + c * b.pitch + i);
      const Vec<Real> e = exp_vector<Real>(scale, z < Real{0} ? z : -z);
      const Vec<Real> inverse = reciprocal<Real>(e + Real{1});
      const Vec<Real> small = e * inverse; // the smaller of p and 1 - p
      const Vec<Real> p = z < Real{0} ? small : inverse;
      const Vec<Real> q = z < Real{0} ? inverse : small;
      const Vec<Real> slope = p * squared + (predicted + is_target.choose(overlap, Vec<Real>{}));
      const Vec<Real> value = p * q * slope + is_target.choose(-(q * nll), p * rest);
      store(s.gradient + c * b.tile_pitch + i, dropped.choose(Vec<Real>{}, value));
    }
  }
}

// Floats of 2 to 8 classes stay in registers.
template <typename Real, template <typename, int> class Function, typename Arguments>
static void for_classes(const Arguments &s) {
  if constexpr (sizeof(Real) == 4) {
    static constexpr void (*kSpecialised[])(const Arguments &) = {
        Function<Real, 2>::run, Function<Real, 3>::run, Function<Real, 4>::run,
        Function<Real, 5>::run, Function<Real, 6>::run, Function<Real, 7>::run,
        Function<Real, 8>::run,
    };
    if (s.block.classes >= 2 && s.block.classes <= 8) {
      return kSpecialised[s.block.classes - 2](s);
    }
  }
  Function<Real, 0>::run(s);
}

template <typename Real, int kClasses> struct SoftmaxSums {
  static void run(const ClassSums<Real> &s) {
    if (s.wanted.overlaps && s.wanted.likelihood) {
      softmax_sums<Real, kClasses, true, true>(s);
    } else if (s.wanted.overlaps) {
      softmax_sums<Real, kClasses, true, false>(s);
    } else {
      softmax_sums<Real, kClasses, false, true>(s);
    }
  }
};

template <typename Real, int kClasses> struct SoftmaxGradient {
  static void run(const ClassGradient<Real> &s) {
    if (s.wanted.overlaps && s.wanted.likelihood) {
      softmax_gradient<Real, kClasses, true, true>(s);
    } else if (s.wanted.overlaps) {
      softmax_gradient<Real, kClasses, true, false>(s);
    } else {
      softmax_gradient<Real, kClasses, false, true>(s);
    }
  }
};

template <typename Real> static void class_sums(const ClassSums<Real> &s) {
  count_references<Real>(s.block, s.sums + sum::kReference * s.block.classes);
  if (s.block.head == Activation::kSoftmax) {
    for_classes<Real, SoftmaxSums>(s);
  } else {
    sigmoid_sums<Real>(s);
  }
}

template <typename Real> static void class_gradient(const ClassGradient<Real> &s) {
  if (s.block.head == Activation::kSoftmax) {
    for_classes<Real, SoftmaxGradient>(s);
  } else {
    sigmoid_gradient<Real>(s);
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
