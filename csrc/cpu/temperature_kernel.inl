// Loss, gradient and Hessian of one block of voxels by inverse temperatures. Compiled once per
// instruction set, with contraction.

#include "cpu/activation.h"
#include "cpu/element.h"
#include "cpu/kernels.h"
#include "cpu/temperature_block.h"
#include "cpu/temperature_sums.h"

namespace fastcal::cpu::FASTCAL_ISA {

// The sum over the kept voxels of ln total + rest, four vectors at a time.
template <typename Real> static double sum_losses(const TemperatureBlock<Real> &b) {
  DoubleSum<Real> loss;
  LaneCounter<Real> voxels;
  in_fours(b.voxels / Lanes<Real>::kCount, [&](auto count, std::int64_t first) {
    constexpr int kCount = decltype(count)::kValue;
    Vec<Real> log[kCount];
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      log[k] = load(b.total + (first + k) * Lanes<Real>::kCount);
    }
    log2_each<Real, kCount>(log);
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      const std::int64_t i = (first + k) * Lanes<Real>::kCount;
      const Mask<Real> kept = Mask<Real>::set(b.keep + i);
      voxels.add(kept);
      loss.add(kept.choose(log[k] * Constants<Real>::kLn2 + load(b.rest + i), Vec<Real>{}));
    }
  });
  *b.n_voxels += voxels.total();
  return loss.total();
}

// Softmax with one temperature. With d = z - max z and e = exp(b d), the loss is ln sum e - b d_y,
// its gradient E[d] - d_y and its curvature Var[d], both under p = e / sum e. Nothing cancels when
// d is counted from the largest logit, since that class has at least 1 / C of the probability.
template <typename Real> struct SoftmaxSums {
  explicit SoftmaxSums(const TemperatureBlock<Real> &block) : b(block) {}

  const TemperatureBlock<Real> &b;
  GroupedSum<Real> gradient;
  GroupedSum<Real> curvature;
  GroupedSum<Real> rest; // of the loss, without the logarithms of the totals
  LogOfTotals<Real> logs;
  LaneCounter<Real> voxels;

  // Adds one vector. Wherever d_target is 0, `others` is the total without the target's term; the
  // moments are sum e d and sum e d^2.
  inline __attribute__((always_inline)) void add(std::int64_t i, Mask<Real> valid, Vec<Real> total,
                                                 Vec<Real> others, Vec<Real> first_moment,
                                                 Vec<Real> second_moment, Vec<Real> d_target) {
    const Mask<Real> absent = is_nothing<Real>(d_target);
    if (__builtin_expect(absent.bits() != 0, 0)) {
      d_target = absent.choose(splat<Real>(b.low), d_target);
    }
    const Mask<Real> kept = without_invalid<Real>(b, i, valid);
    const Vec<Real> inverse = reciprocal<Real>(total);
    const Vec<Real> mean = first_moment * inverse;
    // Where the target has the largest logit, the loss may be far below the rounding error of the
    // total.
    const Vec<Real> lost = d_target < Real{0} ? Vec<Real>{} : lost_in<Real>(total, others);
    voxels.add(kept);
    gradient.add(kept, mean - d_target);
    curvature.add(kept, second_moment * inverse - mean * mean);
    rest.add(kept, lost - d_target * b.inverse_temperatures[0]);
    logs.add(kept, total);
  }

  // Calls add_vector(i) for every vector of the block, and adds the sums to those of the block.
  template <typename Function>
  inline __attribute__((always_inline)) void over_block(const Function &add_vector) {
    for (std::int64_t first = 0; first < b.voxels; first += GroupedSum<Real>::kVoxels) {
      const std::int64_t end = first + GroupedSum<Real>::kVoxels;
      for (std::int64_t i = first; i < end && i < b.voxels; i += Lanes<Real>::kCount) {
        add_vector(i);
      }
      gradient.settle();
      curvature.settle();
      rest.settle();
    }
    *b.n_voxels += voxels.total();
    b.sums[TemperatureLayout::kLoss] += rest.sum.total() + logs.total();
    b.sums[TemperatureLayout::kGradient] += gradient.sum.total();
    b.sums[TemperatureLayout::kGradient + 1] += curvature.sum.total();
  }
};

// Takes any number of classes. Without kAbsent a logit of -inf has probability 0.
template <typename Real, typename Element, bool kAbsent>
static void add_softmax(const TemperatureBlock<Real> &b) {
  const Element *__restrict values = static_cast<const Element *>(b.values);
  const ExpScale<Real> scale(b.inverse_temperatures[0]);
  const std::int64_t ahead = b.prefetch ? b.voxels : 0;
  const std::int64_t pitch = b.pitch;
  SoftmaxSums<Real> sums(b);
  sums.over_block([&](std::int64_t i) __attribute__((always_inline)) {
    Vec<Real> top = load_real<Real>(values + i);
    for (std::int64_t c = 0; c < b.classes; ++c) {
      const Vec<Real> z = load_real<Real>(values + c * pitch + i);
      __builtin_prefetch(values + c * pitch + i + ahead, 0, 2);
      top = z > top ? z : top;
    }
    const IntVec<Real> target = load_lanes<Real>(b.target + i);
    Vec<Real> total = {};
    Vec<Real> others = {};
    Vec<Real> first_moment = {};
    Vec<Real> second_moment = {};
    Vec<Real> d_target = {};
    in_fours(b.classes, [&](auto count, std::int64_t first) __attribute__((always_inline)) {
      constexpr int kCount = decltype(count)::kValue;
      Vec<Real> e[kCount];
      Vec<Real> d[kCount];
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        const Vec<Real> z = load_real<Real>(values + (first + k) * pitch + i);
        e[k] = z - top;
        if constexpr (kAbsent) {
          e[k] = is_nothing<Real>(z).choose(splat<Real>(b.low), e[k]);
        }
        d_target = Mask<Real>::differ(target, splat_int<Real>(first + k)).choose(d_target, e[k]);
      }
      exp_each<Real, kCount>(scale, e, d);
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        const Mask<Real> is_other = Mask<Real>::differ(target, splat_int<Real>(first + k));
        const Vec<Real> weighted = e[k] * d[k];
        total += e[k];
        others = is_other.choose(others + e[k], others);
        first_moment += weighted;
        second_moment += weighted * d[k];
      }
    });
    // A logit that is not a number makes the total one that is not. Where all classes are absent,
    // the largest logit shows it.
    const Vec<Real> proof = kAbsent ? total - total + top : total;
    sums.add(i, is_number<Real>(proof), total, others, first_moment, second_moment, d_target);
  });
}

// Takes few classes, in registers. The largest logit has e = 1 and d = 0, so it is separated from
// the others, whose sums do not depend on which class they belong to.
template <typename Real, typename Element, int kClasses>
static void add_softmax_of_few(const TemperatureBlock<Real> &b) {
  const Element *__restrict values = static_cast<const Element *>(b.values);
  const ExpScale<Real> scale(b.inverse_temperatures[0]);
  const std::int64_t ahead = b.prefetch ? b.voxels : 0;
  const std::int64_t pitch = b.pitch;
  SoftmaxSums<Real> sums(b);
  sums.over_block([&](std::int64_t i) __attribute__((always_inline)) {
    const IntVec<Real> target = load_lanes<Real>(b.target + i);
    Vec<Real> lower[kClasses - 1];
    Vec<Real> top = load_real<Real>(values + i);
    Vec<Real> z_target = top;
    __builtin_prefetch(values + i + ahead, 0, 2);
#pragma GCC unroll 8
    for (int c = 1; c < kClasses; ++c) {
      const Vec<Real> z = load_real<Real>(values + c * pitch + i);
      __builtin_prefetch(values + c * pitch + i + ahead, 0, 2);
      z_target = Mask<Real>::equal(target, splat_int<Real>(c)).choose(z, z_target);
      lower[c - 1] = smaller_of<Real>(z, top); // NaN where z is NaN
      top = larger_of<Real>(z, top);
    }
    Vec<Real> others = {};
    Vec<Real> first_moment = {};
    Vec<Real> second_moment = {};
    in_fours_of<kClasses - 1>([&](auto count, std::int64_t first) __attribute__((always_inline)) {
      constexpr int kCount = decltype(count)::kValue;
      Vec<Real> e[kCount];
      Vec<Real> d[kCount];
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        e[k] = lower[first + k] - top;
      }
      exp_each<Real, kCount>(scale, e, d);
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        const Vec<Real> weighted = e[k] * d[k];
        const Vec<Real> squared = weighted * d[k];
        const bool starts = first + k == 0;
        others = starts ? e[k] : others + e[k];
        first_moment = starts ? weighted : first_moment + weighted;
        second_moment = starts ? squared : second_moment + squared;
      }
    });
    const Vec<Real> total = others + Real{1};
    const Vec<Real> limit = splat<Real>(infinity<Real>());
    const Mask<Real> valid = Mask<Real>::above(limit, total) & Mask<Real>::above(limit, top);
    sums.add(i, valid, total, others, first_moment, second_moment, z_target - top);
  });
}

// Softmax with one temperature per class: fills `logits` with finite z, `scaled` with e^(b z - max
// b z), and total and rest.
template <typename Real> static void exponentials(const TemperatureBlock<Real> &b) {
  const Real *values = static_cast<const Real *>(b.values);
  const ExpScale<Real> scale(Real{1});
  const std::int64_t ahead = b.prefetch ? b.voxels : 0;
  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> top = load(values + i);
    Vec<Real> poison = {};
    for (std::int64_t c = 0; c < b.classes; ++c) {
      const Vec<Real> z = load(values + c * b.pitch + i);
      __builtin_prefetch(values + c * b.pitch + i + ahead, 0, 2);
      poison += poison_of<Real>(z);
      top = z > top ? z : top;
    }
    without_invalid<Real>(b, i, is_number<Real>(poison + top));
    Vec<Real> highest = splat<Real>(-infinity<Real>());
    for (std::int64_t c = 0; c < b.classes; ++c) {
      Vec<Real> z = load(values + c * b.pitch + i);
      z = z > -infinity<Real>() ? z : top + b.low;
      const Vec<Real> a = z * b.inverse_temperatures[c];
      highest = a > highest ? a : highest;
      store(b.logits + c * b.tile_pitch + i, z);
      store(b.scaled + c * b.tile_pitch + i, a);
    }
    const IntVec<Real> target = load_lanes<Real>(b.target + i);
    Vec<Real> total = {};
    Vec<Real> others = {};
    Vec<Real> a_target = {};
    for (std::int64_t c = 0; c < b.classes; ++c) {
      Real *at = b.scaled + c * b.tile_pitch + i;
      const Vec<Real> a = load(at) - highest;
      const Vec<Real> e = exp_vector<Real>(scale, a);
      const Mask<Real> is_target = Mask<Real>::equal(target, splat_int<Real>(c));
      total += e;
      others += is_target.choose(Vec<Real>{}, e);
      a_target = is_target.choose(a, a_target);
      store(at, e);
    }
    const Vec<Real> lost = a_target < Real{0} ? Vec<Real>{} : lost_in<Real>(total, others);
    store(b.total + i, total);
    store(b.rest + i, lost - a_target);
    store(b.others + i, others);
  }
}

template <typename Real>
static double dot(const Real *one, const Real *other, std::int64_t voxels) {
  Vec<Real> sums[2] = {};
  std::int64_t i = 0;
  for (; i + 2 * Lanes<Real>::kCount <= voxels; i += 2 * Lanes<Real>::kCount) {
    sums[0] += load(one + i) * load(other + i);
    sums[1] += load(one + i + Lanes<Real>::kCount) * load(other + i + Lanes<Real>::kCount);
  }
  for (; i < voxels; i += Lanes<Real>::kCount) {
    sums[0] += load(one + i) * load(other + i);
  }
  DoubleSum<Real> sum;
  sum.add(sums[0]);
  sum.add(sums[1]);
  return sum.total();
}

// Adds gradient_k = (p_k - y_k) z_k and Hessian_kl = p_k (1{k = l} - p_l) z_k z_l.
template <typename Real> static void add_softmax_per_class(const TemperatureBlock<Real> &b) {
  exponentials<Real>(b);
  double *gradient = b.sums + TemperatureLayout::kGradient;
  double *hessian = gradient + b.classes;
  for (std::int64_t c = 0; c < b.classes; ++c) {
    DoubleSum<Real> first;
    DoubleSum<Real> diagonal;
    Real *products = b.products + c * b.tile_pitch;
    for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
      const Mask<Real> kept = Mask<Real>::set(b.keep + i);
      const Mask<Real> is_target =
          Mask<Real>::equal(load_lanes<Real>(b.target + i), splat_int<Real>(c));
      const Vec<Real> z = load(b.logits + c * b.tile_pitch + i);
      const Vec<Real> inverse = reciprocal<Real>(load(b.total + i));
      const Vec<Real> p = load(b.scaled + c * b.tile_pitch + i) * inverse;
      const Vec<Real> q =
          load(b.others + i) * inverse; // 1 - p of the target class, without cancellation
      const Vec<Real> pz = kept.choose(p * z, Vec<Real>{});
      first.add(kept.choose(is_target.choose(-q, p) * z, Vec<Real>{}));
      diagonal.add(kept.choose(is_target.choose(q, Real{1} - p) * z, Vec<Real>{}) * pz);
      store(products + i, pz);
    }
    gradient[c] += first.total();
    hessian[c * b.classes + c] += diagonal.total();
    for (std::int64_t k = 0; k < c; ++k) {
      const double both = dot<Real>(products, b.products + k * b.tile_pitch, b.voxels);
      hessian[c * b.classes + k] -= both;
      hessian[k * b.classes + c] -= both;
    }
  }
  b.sums[TemperatureLayout::kLoss] += sum_losses<Real>(b);
}

// Bernoulli variables, with a sigmoid for each class. With t = (1 - 2 y) b z and s the sigmoid, the
// loss is ln(1 + e^t), its gradient (1 - 2 y) z s(t) and its curvature s(t) s(-t) z^2.
template <typename Real> static void add_bernoullis(const TemperatureBlock<Real> &b) {
  const Real *values = static_cast<const Real *>(b.values);
  const std::int64_t ahead = b.prefetch ? b.voxels : 0;
  LaneCounter<Real> voxels;
  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> poison = {};
    for (std::int64_t c = 0; c < b.classes; ++c) {
      poison += poison_of<Real>(load(values + c * b.pitch + i));
      __builtin_prefetch(values + c * b.pitch + i + ahead, 0, 2);
    }
    voxels.add(without_invalid<Real>(b, i, is_number<Real>(poison)));
  }
  *b.n_voxels += voxels.total();
  const std::int64_t parameters = b.per_class ? b.classes : 1;
  const ExpScale<Real> scale(Real{1});
  for (std::int64_t c = 0; c < b.classes; ++c) {
    const std::int64_t parameter = b.per_class ? c : 0;
    const Real inverse_temperature = b.inverse_temperatures[parameter];
    const std::int32_t *targets = b.target + (b.multilabel ? c * b.tile_pitch : 0);
    const IntVec<Real> wanted = splat_int<Real>(b.multilabel ? 1 : c);
    DoubleSum<Real> loss;
    DoubleSum<Real> gradient;
    DoubleSum<Real> curvature;
    for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
      const Mask<Real> kept = Mask<Real>::set(b.keep + i);
      const Mask<Real> present = Mask<Real>::equal(load_lanes<Real>(targets + i), wanted);
      Vec<Real> z = load(values + c * b.pitch + i);
      z = z > -infinity<Real>() ? z : splat<Real>(b.low);
      const Vec<Real> signed_z = kept.choose(present.choose(-z, z), Vec<Real>{});
      const Vec<Real> t = signed_z * inverse_temperature;
      const Vec<Real> e = exp_vector<Real>(scale, t < Real{0} ? t : -t); // e^-|t|
      const Vec<Real> total = e + Real{1};
      const Vec<Real> inverse = reciprocal<Real>(total);
      const Vec<Real> share = (t < Real{0} ? e : Real{1} + (e - e)) * inverse;
      const Vec<Real> both = e * inverse * inverse;
      const Vec<Real> above = t < Real{0} ? Vec<Real>{} : t;
      const Vec<Real> log = log2_vector<Real>(total) * Constants<Real>::kLn2;
      loss.add(kept.choose(above + (log + lost_in<Real>(total, e)), Vec<Real>{}));
      gradient.add(share * signed_z);
      curvature.add(both * signed_z * signed_z);
    }
    b.sums[TemperatureLayout::kLoss] += loss.total();
    b.sums[TemperatureLayout::kGradient + parameter] += gradient.total();
    b.sums[TemperatureLayout::kGradient + parameters + parameter * parameters + parameter] +=
        curvature.total();
  }
}

// Turns probabilities into ln p, or ln p - ln (1 - p) of Bernoulli variables, where p and 1 - p are
// at least their floor.
template <typename Real>
static void finite_logits(Real *tile, std::int64_t pitch, std::int64_t voxels, std::int64_t classes,
                          bool bernoulli, const ProbabilityFloor &floor) {
  constexpr Real kSlack = Real{1e-3};
  const Real tiny = static_cast<Real>(floor.tiny);
  const Real rest = static_cast<Real>(floor.rest);
  const Real ln2 = Constants<Real>::kLn2;
  for (std::int64_t c = 0; c < classes; ++c) {
    for (std::int64_t i = 0; i < voxels; i += Lanes<Real>::kCount) {
      Real *at = tile + c * pitch + i;
      const Vec<Real> p = load(at);
      Vec<Real> z = log2_vector<Real>(at_least<Real>(p, tiny)) * ln2;
      if (bernoulli) {
        z -= log2_vector<Real>(at_least<Real>(Real{1} - p, rest)) * ln2;
      }
      const Mask<Real> valid = Mask<Real>::above(p, splat<Real>(-kSlack)) &
                               Mask<Real>::above(splat<Real>(Real{1} + kSlack), p);
      store(at, valid.choose(z, nan_vector<Real>()));
    }
  }
}

// Floats of 2 to 8 classes stay in registers; all else takes the loop with a count known at run
// time.
template <typename Real, typename Element>
static void add_softmax_of(const TemperatureBlock<Real> &b) {
  constexpr Real kNone = Real{-60}; // e^-60 vanishes beside 1, even times the square of a logit
  if (b.low * b.inverse_temperatures[0] > kNone) {
    return add_softmax<Real, Element, true>(b);
  }
  if constexpr (sizeof(Real) == 4) {
    static constexpr void (*kSpecialised[])(const TemperatureBlock<Real> &) = {
        add_softmax_of_few<Real, Element, 2>, add_softmax_of_few<Real, Element, 3>,
        add_softmax_of_few<Real, Element, 4>, add_softmax_of_few<Real, Element, 5>,
        add_softmax_of_few<Real, Element, 6>, add_softmax_of_few<Real, Element, 7>,
        add_softmax_of_few<Real, Element, 8>};
    if (b.classes >= 2 && b.classes <= 8) {
      return kSpecialised[b.classes - 2](b);
    }
  }
  add_softmax<Real, Element, false>(b);
}

template <typename Real> static void add_temperature(const TemperatureBlock<Real> &b) {
  if (b.bernoulli) {
    add_bernoullis<Real>(b);
  } else if (b.per_class) {
    add_softmax_per_class<Real>(b);
  } else if (b.dtype == Dtype::kFloat16) {
    if constexpr (sizeof(Real) == 4) {
      add_softmax_of<Real, Half>(b);
    }
  } else if (b.dtype == Dtype::kBFloat16) {
    if constexpr (sizeof(Real) == 4) {
      add_softmax_of<Real, BFloat>(b);
    }
  } else {
    add_softmax_of<Real, Real>(b);
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
