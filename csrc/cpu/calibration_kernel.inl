// The statistics stage on one block of voxels. Its results are integers, and equal probabilities
// give equal integers on every instruction set and backend. Compiled once per instruction set,
// without contraction.

#include "cpu/bins.h"
#include "cpu/entropy_bins.h"
#include "cpu/fine_bins.h"
#include "cpu/kernels.h"
#include "cpu/moment_bins.h"

namespace fastcal::cpu::FASTCAL_ISA {

static inline void add_real(std::int64_t *hi_lo, std::int64_t sum) {
  const std::int64_t lo = hi_lo[1] + (sum & kFractionMask);
  hi_lo[0] += (sum >> kFractionBits) + (lo >> kFractionBits);
  hi_lo[1] = lo & kFractionMask;
}

// Cuts one plane of targets to 32-bit lanes. True when none lies outside [0, limit).
template <typename Element>
static inline bool narrow_targets(const Element *__restrict from, std::int64_t stride,
                                  std::int64_t voxels, std::uint32_t limit,
                                  std::int32_t *__restrict classes) {
  std::uint64_t all = 0;
  std::uint32_t outside = 0;
  for (std::int64_t v = 0; v < voxels; ++v) {
    const Element value = from[v * stride];
    const std::uint32_t low = static_cast<std::uint32_t>(value);
    classes[v] = static_cast<std::int32_t>(low);
    outside |= low >= limit ? 1U : 0U;
    if constexpr (sizeof(Element) == 8) {
      all |= static_cast<std::uint64_t>(value);
    }
  }
  return outside == 0 && (all >> 32) == 0;
}

// Converts one plane of targets to 32-bit lanes. What lies outside [0, C) becomes -1, which no
// label equals. True when there is such a target.
template <typename Element>
static inline bool load_target_plane(const TargetBlock &t, const Element *__restrict from,
                                     std::int64_t stride, std::int32_t *__restrict classes) {
  const std::int64_t voxels = t.target.voxels;
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(Element));
  for (std::int64_t v = 0; t.prefetch && stride == 1 && v < voxels; v += kLine) {
    __builtin_prefetch(from + voxels + v, 0, 2); // of the next block
  }
  const bool inside =
      narrow_targets(from, stride, voxels, static_cast<std::uint32_t>(t.num_classes), classes);
  // Before the narrowed targets are compared with anything: 2^32 + k is not k.
  for (std::int64_t v = 0; !inside && v < voxels; ++v) {
    const std::int64_t value = static_cast<std::int64_t>(from[v * stride]);
    classes[v] = value >= 0 && value < t.num_classes ? classes[v] : -1;
    t.keep[v] = t.has_ignore_index && value == t.ignore_index ? 0 : t.keep[v];
  }
  const bool ignored_inside = t.ignore_index >= 0 && t.ignore_index < t.num_classes;
  if (t.has_ignore_index && ignored_inside) {
    std::int32_t *__restrict keep = t.keep;
    const std::int32_t ignored = static_cast<std::int32_t>(t.ignore_index);
    for (std::int64_t v = 0; v < voxels; ++v) {
      keep[v] = classes[v] == ignored ? 0 : keep[v];
    }
  }
  return !inside;
}

// Counts the voxels whose target is not a class, and drops them. Their sum wraps around, as it does
// on every backend, because targets may be of any size.
template <typename Element> static void drop_bad_targets(const TargetBlock &t) {
  const Element *from = static_cast<const Element *>(t.target.data);
  for (std::int64_t v = 0; v < t.target.voxels; ++v) {
    std::int64_t bad = 0;
    std::uint64_t sum = static_cast<std::uint64_t>(t.row[word::kBadTargetSum]);
    for (std::int64_t c = 0; c < t.target.classes; ++c) {
      if (t.classes[c * t.pitch + v] < 0) {
        bad = 1;
        sum +=
            static_cast<std::uint64_t>(from[c * t.target.class_stride + v * t.target.voxel_stride]);
      }
    }
    if (bad != 0 && t.keep[v] != 0) {
      t.keep[v] = 0;
      t.row[word::kBadTarget] += 1;
      t.row[word::kBadTargetSum] = static_cast<std::int64_t>(sum);
    }
  }
}

template <typename Element> static void load_target_elements(const TargetBlock &t) {
  const Element *from = static_cast<const Element *>(t.target.data);
  bool bad = false;
  for (std::int64_t c = 0; c < t.target.classes; ++c) {
    const Element *plane = from + c * t.target.class_stride;
    std::int32_t *classes = t.classes + c * t.pitch;
    bad |= t.target.voxel_stride == 1
               ? load_target_plane<Element>(t, plane, 1, classes)
               : load_target_plane<Element>(t, plane, t.target.voxel_stride, classes);
  }
  if (bad) {
    drop_bad_targets<Element>(t);
  }
}

static void load_target(const TargetBlock &t) {
  const std::uint8_t *mask = static_cast<const std::uint8_t *>(t.mask.data);
  std::int32_t *__restrict keep = t.keep;
  const std::int64_t voxels = t.target.voxels;
  if (mask == nullptr) {
    for (std::int64_t v = 0; v < voxels; ++v) {
      keep[v] = -1;
    }
  } else if (t.mask.voxel_stride == 1) {
    for (std::int64_t v = 0; v < voxels; ++v) {
      keep[v] = mask[v] != 0 ? -1 : 0;
    }
  } else {
    for (std::int64_t v = 0; v < voxels; ++v) {
      keep[v] = mask[v * t.mask.voxel_stride] != 0 ? -1 : 0;
    }
  }
  switch (t.target.dtype) {
  case Dtype::kInt8:
    return load_target_elements<std::int8_t>(t);
  case Dtype::kInt16:
    return load_target_elements<std::int16_t>(t);
  case Dtype::kInt32:
    return load_target_elements<std::int32_t>(t);
  case Dtype::kInt64:
    return load_target_elements<std::int64_t>(t);
  case Dtype::kUInt16:
    return load_target_elements<std::uint16_t>(t);
  case Dtype::kUInt32:
    return load_target_elements<std::uint32_t>(t);
  case Dtype::kUInt64:
    return load_target_elements<std::uint64_t>(t);
  default:
    return load_target_elements<std::uint8_t>(t); // uint8 and bool
  }
}

// Adds the Brier score and the negative log-likelihood of exclusive classes.
template <typename Real> static void count_scores(const CountBlock<Real> &b) {
  FixedPointSum<Real> brier;
  FixedPointSum<Real> nll;
  LaneCounter<Real> clipped;
  LaneCounter<Real> unnormalised;
  const std::int64_t classes = b.layout.num_classes;
  const Vec<Real> eps = splat<Real>(b.eps);
  // Four vectors of voxels at a time, since the steps of a single logarithm would wait for each
  // other.
  in_fours(b.voxels / Lanes<Real>::kCount, [&](auto count, std::int64_t first) {
    constexpr int kCount = decltype(count)::kValue;
    Vec<Real> loss[kCount];
    Mask<Real> kept[kCount];
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      const std::int64_t i = (first + k) * Lanes<Real>::kCount;
      const IntVec<Real> target = load_lanes<Real>(b.target + i);
      Vec<Real> squares = {};
      Vec<Real> p_target = {};
      IntVec<Real> wanted = {};
      for (std::int64_t c = 0; c < classes; ++c, wanted += 1) {
        const Vec<Real> p = load(b.mean + c * b.mean_pitch + i);
        const Mask<Real> is_target = Mask<Real>::equal(target, wanted);
        const Vec<Real> d = is_target.choose(p - Real{1}, p);
        squares += d * d;
        p_target = is_target.choose(p, p_target);
      }
      kept[k] = Mask<Real>::set(b.keep + i);
      const Mask<Real> below = Mask<Real>::above(eps, p_target);
      loss[k] = below.choose(eps, p_target);
      brier.add(kept[k].choose(squares, Vec<Real>{}));
      clipped.add(kept[k] & below);
    }
    log_exact_steps<Real, kCount>(loss);
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      nll.add(kept[k].choose(-loss[k], Vec<Real>{}));
    }
  });
  for (std::int64_t i = 0; b.class_sum != nullptr && i < b.voxels; i += Lanes<Real>::kCount) {
    const Vec<Real> excess = load(b.class_sum + i) - Real{1};
    const Mask<Real> off = Mask<Real>::above(excess, splat<Real>(Real{1e-3})) |
                           Mask<Real>::above(splat<Real>(Real{-1e-3}), excess);
    unnormalised.add(Mask<Real>::set(b.keep + i) & off);
  }
  add_real(b.row + word::kBrier, brier.total());
  add_real(b.row + word::kNll, nll.total());
  b.row[word::kClipped] += clipped.total();
  b.row[word::kUnnormalised] += unnormalised.total();
}

// The same for one class of a multilabel problem, which is a Bernoulli variable of its own.
template <typename Real>
static void count_binary_scores(const CountBlock<Real> &b, std::int64_t c) {
  FixedPointSum<Real> brier;
  FixedPointSum<Real> nll;
  LaneCounter<Real> correct;
  LaneCounter<Real> clipped;
  const Vec<Real> eps = splat<Real>(b.eps);
  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    const Mask<Real> kept = Mask<Real>::set(b.keep + i);
    const IntVec<Real> target = load_lanes<Real>(b.target + c * b.pitch + i);
    const IntVec<Real> label = load_lanes<Real>(b.label + c * b.pitch + i);
    const Mask<Real> positive = Mask<Real>::equal(target, splat_int<Real>(1));
    const Vec<Real> p = load(b.mean + c * b.mean_pitch + i);
    const Vec<Real> d = positive.choose(p - Real{1}, p);
    const Vec<Real> p_target = positive.choose(p, Real{1} - p);
    const Mask<Real> below = Mask<Real>::above(eps, p_target);
    Vec<Real> log = below.choose(eps, p_target);
    log_exact_steps<Real, 1>(&log);
    brier.add(kept.choose(d * d, Vec<Real>{}));
    nll.add(kept.choose(-log, Vec<Real>{}));
    correct.add(kept & Mask<Real>::equal(label, target));
    clipped.add(kept & below);
  }
  add_real(b.row + word::kBrier, brier.total());
  add_real(b.row + word::kNll, nll.total());
  b.row[word::kCorrect] += correct.total();
  b.row[word::kClipped] += clipped.total();
}

// Four counters of eight bits per lane, one per class: counter k is 1 where the lane's class is 4 *
// group + k.
static inline IntVec<float> class_ones(IntVec<float> classes, std::int64_t group) {
#if FASTCAL_VECTOR_BYTES == 64
  const auto shift = reinterpret_cast<__m512i>((classes - splat_int<float>(4 * group)) << 3);
  return reinterpret_cast<IntVec<float>>(_mm512_sllv_epi32(_mm512_set1_epi32(1), shift));
#elif FASTCAL_VECTOR_BYTES == 32
  const auto shift = reinterpret_cast<__m256i>((classes - splat_int<float>(4 * group)) << 3);
  return reinterpret_cast<IntVec<float>>(_mm256_sllv_epi32(_mm256_set1_epi32(1), shift));
#else
  IntVec<float> ones = {};
  for (int k = 0; k < 4; ++k) {
    ones |= (classes == splat_int<float>(4 * group + k)) & splat_int<float>(1 << 8 * k);
  }
  return ones;
#endif
}

// Adds the counters to the counts of at most four classes.
static inline void add_class_ones(IntVec<float> ones, std::int64_t classes, std::int64_t *counts) {
  for (std::int64_t k = 0; k < 4 && k < classes; ++k) {
    counts[k] += sum_lanes((ones >> 8 * k) & splat_int<float>(255));
  }
}

static inline void count_four_classes(const std::int32_t *label, const std::int32_t *target,
                                      const std::int32_t *keep, std::int64_t voxels,
                                      std::int64_t group, std::int64_t classes,
                                      std::int64_t *predicted, std::int64_t *reference,
                                      std::int64_t *true_positive) {
  constexpr std::int64_t kMost = 127 * Lanes<float>::kCount; // the most that the counters hold
  for (std::int64_t begin = 0; begin < voxels; begin += kMost) {
    const std::int64_t end = voxels - begin > kMost ? begin + kMost : voxels;
    IntVec<float> labels = {};
    IntVec<float> targets = {};
    IntVec<float> both = {};
    for (std::int64_t i = begin; i < end; i += Lanes<float>::kCount) {
      const IntVec<float> kept = load_lanes<float>(keep + i);
      const IntVec<float> l = load_lanes<float>(label + i);
      const IntVec<float> t = load_lanes<float>(target + i);
      const IntVec<float> is_target = kept & class_ones(t, group);
      labels += kept & class_ones(l, group);
      targets += is_target;
      both += Mask<float>::equal(l, t).choose(is_target, IntVec<float>{});
    }
    add_class_ones(labels, classes, predicted);
    add_class_ones(targets, classes, reference);
    add_class_ones(both, classes, true_positive);
  }
}

// Counts the predicted, reference and true positive voxels of each class. Each voxel has one of the
// exclusive classes, so that the sums of these counts are the kept and the correct voxels.
template <typename Real> static void count_classes(const CountBlock<Real> &b) {
  const StatisticsLayout &layout = b.layout;
  std::int64_t *predicted = b.row + layout.predicted();
  std::int64_t *reference = b.row + layout.reference();
  std::int64_t *true_positive = b.row + layout.true_positive();
  if (b.multilabel) {
    for (std::int64_t c = 0; c < layout.num_classes; ++c) {
      std::int64_t counts[3][2] = {}; // of the absent and the present
      count_four_classes(b.label + c * b.pitch, b.target + c * b.pitch, b.keep, b.voxels, 0, 2,
                         counts[0], counts[1], counts[2]);
      predicted[c] += counts[0][1];
      reference[c] += counts[1][1];
      true_positive[c] += counts[2][1];
      b.row[word::kVoxels] += c == 0 ? counts[1][0] + counts[1][1] : 0;
    }
    return;
  }
  constexpr std::int64_t kFewClasses =
      16; // up to here one sweep by vectors per four classes is cheaper
  if (layout.num_classes <= kFewClasses) {
    for (std::int64_t c = 0; c < layout.num_classes; c += 4) {
      const std::int64_t classes = layout.num_classes - c < 4 ? layout.num_classes - c : 4;
      std::int64_t counts[3][4] = {};
      count_four_classes(b.label, b.target, b.keep, b.voxels, c / 4, classes, counts[0], counts[1],
                         counts[2]);
      for (std::int64_t k = 0; k < classes; ++k) {
        predicted[c + k] += counts[0][k];
        reference[c + k] += counts[1][k];
        true_positive[c + k] += counts[2][k];
        b.row[word::kVoxels] += counts[1][k];
        b.row[word::kCorrect] += counts[2][k];
      }
    }
    return;
  }
  for (std::int64_t v = 0; v < b.voxels; ++v) {
    if (b.keep[v] != 0) {
      const bool correct = b.label[v] == b.target[v];
      predicted[b.label[v]] += 1;
      reference[b.target[v]] += 1;
      true_positive[b.label[v]] += correct;
      b.row[word::kVoxels] += 1;
      b.row[word::kCorrect] += correct;
    }
  }
}

// Invalid voxels do not count, and are counted as invalid.
template <typename Real> static void drop_invalid(const CountBlock<Real> &b) {
  for (std::int64_t v = 0; v < b.voxels; ++v) {
    b.row[word::kInvalid] += b.keep[v] & (b.validity[v] & 1);
    b.row[word::kOutOfRange] += b.keep[v] & ((b.validity[v] >> 1) & 1);
    b.keep[v] = b.validity[v] != 0 ? 0 : b.keep[v];
  }
}

static inline bool any_set(const std::int32_t *values, std::int64_t n) {
  using Ints = IntVec<float>;
  Ints any = {};
  for (std::int64_t i = 0; i < n; i += Lanes<float>::kCount) {
    any |= load_as<Ints>(values + i);
  }
  return bits_of<float>(any != Ints{}) != 0;
}

// Whether the tables, which count the top-label and the classwise histograms in one go, serve for
// all of these exclusive classes.
template <typename Real> static inline bool counts_together(const CountBlock<Real> &b) {
  const StatisticsLayout &layout = b.layout;
  bool together = layout.top_label && layout.classwise && !b.multilabel;
  for (std::int64_t c = 0; together && c < layout.num_classes; ++c) {
    together =
        is_spread<Real>(b.mean + c * b.mean_pitch, b.voxels, {b.thresholds, layout.n_cells - 1});
  }
  return together;
}

// Counts the confidence against correctness.
template <typename Real>
static inline void add_top_label(const CountBlock<Real> &b, std::int64_t plane, bool together) {
  const StatisticsLayout &layout = b.layout;
  const Real *values = b.confidence + plane;
  const auto correct = [&](std::int64_t i) {
    return Mask<Real>::equal(load_lanes<Real>(b.label + plane + i),
                             load_lanes<Real>(b.target + plane + i));
  };
  if (!together) {
    count_bins<Real>(values, b.keep, b.voxels, {b.thresholds, layout.n_cells - 1}, correct,
                     b.row + layout.top_label_bins());
  }
  if (layout.fine_bins > 0) {
    count_fine<Real>(values, b.keep, b.voxels, layout, correct, b.row + layout.fine_top_label());
  }
}

// Counts the probabilities of a class against its presence.
template <typename Real>
static inline void add_class(const CountBlock<Real> &b, std::int64_t c, std::int64_t plane,
                             bool together) {
  const StatisticsLayout &layout = b.layout;
  const Real *values = b.mean + c * b.mean_pitch;
  const Thresholds<Real> bins{b.thresholds, layout.n_cells - 1};
  const std::int64_t before = c * kBinWords * layout.n_cells;
  const IntVec<Real> wanted = splat_int<Real>(b.multilabel ? 1 : c);
  const auto is_class = [&](std::int64_t i) {
    return Mask<Real>::equal(load_lanes<Real>(b.target + plane + i), wanted);
  };
  std::int64_t *cells = b.row + layout.classwise_bins() + before;
  if (together) {
    count_spread_class<Real>(b, c, bins, cells, b.row + layout.top_label_bins());
  } else {
    count_bins<Real>(values, b.keep, b.voxels, bins, is_class, cells);
  }
  if (layout.moments) {
    count_moments<Real>(values, b.keep, b.voxels, bins, is_class,
                        b.row + layout.moment_bins() + before);
  }
  if (layout.fine_bins > 0) {
    count_fine<Real>(values, b.keep, b.voxels, layout, is_class,
                     b.row + layout.fine_classwise() + c * kFineWords * layout.fine_bins);
  }
}

template <typename Real> static void count(const CountBlock<Real> &b) {
  if (any_set(b.validity, b.voxels)) {
    drop_invalid<Real>(b);
  }
  const StatisticsLayout &layout = b.layout;
  const bool together = counts_together<Real>(b);
  count_classes<Real>(b);
  if (!b.multilabel) {
    count_scores<Real>(b);
    if (layout.top_label) {
      add_top_label<Real>(b, 0, together);
    }
  }
  for (std::int64_t c = 0; c < layout.num_classes; ++c) {
    const std::int64_t plane = b.multilabel ? c * b.pitch : 0;
    if (b.multilabel) {
      count_binary_scores<Real>(b, c);
      if (layout.top_label) {
        add_top_label<Real>(b, plane, false);
      }
    }
    if (layout.classwise) {
      add_class<Real>(b, c, plane, together);
    }
  }
  if (layout.entropy_bins > 0) {
    count_entropy<Real>(b);
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
