// Sums over the segments of one block of voxels. The results are integers, and equal numbers give
// equal integers on every instruction set and backend. Compiled once per instruction set, without
// contraction.

#include "cpu/kernels.h"
#include "cpu/segment_block.h"
#include "cpu/vec_math.h"

namespace fastcal::cpu::FASTCAL_ISA {

// -(p ln p + q ln q) with q = 1 - p and the logarithm of the statistics.
template <typename Real> static inline Vec<Real> binary_entropy(Vec<Real> p, bool clip) {
  constexpr Real kTiny = static_cast<Real>(sizeof(Real) == 4 ? __FLT_MIN__ : __DBL_MIN__);
  if (clip) {
    p = Mask<Real>::above(splat<Real>(static_cast<Real>(kClipLow)), p)
            .choose(splat<Real>(static_cast<Real>(kClippedLow)), p);
    p = Mask<Real>::above(p, splat<Real>(static_cast<Real>(kClipHigh)))
            .choose(splat<Real>(static_cast<Real>(kClippedHigh)), p);
  }
  const Vec<Real> q = at_least<Real>(Real{1} - p, Real{0});
  Vec<Real> log[2] = {at_least<Real>(p, kTiny), at_least<Real>(q, kTiny)};
  log_exact_steps<Real, 2>(log);
  const Vec<Real> h = Real{0} - p * log[0];
  return h - q * log[1];
}

// The lanes that lie between two limits, false for NaN.
template <typename Real>
static inline Mask<Real> between(Vec<Real> low, Vec<Real> x, Vec<Real> high) {
  return Mask<Real>::above(x, low) & Mask<Real>::above(high, x);
}

// The sum of a map over a segment, and the number of its voxels where the map is no entropy.
template <typename Real> struct MapSum {
  FixedPointSum<Real> sum;
  LaneCounter<Real> bad;

  // The values that were added, 0 where there was none.
  inline Vec<Real> add(Mask<Real> member, Vec<Real> values) {
    const Mask<Real> good = between<Real>(splat<Real>(static_cast<Real>(kLeastEntropy)), values,
                                          splat<Real>(static_cast<Real>(kMostEntropy)));
    const Vec<Real> added = (member & good).choose(values, Vec<Real>{});
    bad.add(member.without(good));
    sum.add(added);
    return added;
  }
};

// Sums of v and of v (v - 1): whole numbers, exact in double.
template <typename Real> struct VoteSums {
  Doubles votes = {};
  Doubles pairs = {};

  inline void add(Vec<Real> v) {
    if constexpr (sizeof(Real) == 8) {
      add_doubles(v);
    } else {
      add_doubles(low_half(v));
      add_doubles(high_half(v));
    }
  }
  inline void add_doubles(Doubles v) {
    votes += v;
    pairs += v * (v - 1.0);
  }
};

static inline void add_real(std::int64_t *hi_lo, std::int64_t sum) {
  const std::int64_t lo = hi_lo[1] + (sum & kFractionMask);
  hi_lo[0] += (sum >> kFractionBits) + (lo >> kFractionBits);
  hi_lo[1] = lo & kFractionMask;
}

static inline std::int64_t total_of(Doubles sums) {
  double total = 0.0;
  for (std::size_t lane = 0; lane < sizeof(Doubles) / sizeof(double); ++lane) {
    total += sums[lane];
  }
  return static_cast<std::int64_t>(total);
}

template <typename Real>
static inline void add_votes(const SegmentBlock<Real> &b, std::int64_t c, std::int64_t *row) {
  const Real *votes = b.votes + c * b.votes_pitch;
  VoteSums<Real> sums;
  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    sums.add(Mask<Real>::set(b.keep + i).choose(load(votes + i), Vec<Real>{}));
  }
  row[segment_word::kVotes] += total_of(sums.votes);
  row[segment_word::kVotePairs] += total_of(sums.pairs);
}

// What is summed over the segment of one class.
template <typename Real> struct ClassSums {
  LaneCounter<Real> voxels;
  LaneCounter<Real> interior;
  FixedPointSum<Real> confidence;
  FixedPointSum<Real> binary;
  FixedPointSum<Real> interior_entropy;
  MapSum<Real> entropy;
  MapSum<Real> information;

  // Adds the lanes of one vector that belong to the segment.
  inline void add(const SegmentBlock<Real> &b, std::int64_t i, const std::int32_t *inside,
                  Mask<Real> member, Vec<Real> p) {
    voxels.add(member);
    confidence.add(member.choose(p, Vec<Real>{}));
    if (b.binary) {
      binary.add(member.choose(binary_entropy<Real>(p, b.clip), Vec<Real>{}));
    }
    Vec<Real> h = {};
    if (b.entropy != nullptr) {
      h = entropy.add(member, load(b.entropy + i));
    }
    if (b.information != nullptr) {
      information.add(member, load(b.information + i));
    }
    if (inside != nullptr) {
      const Mask<Real> deep =
          member & Mask<Real>::equal(load_lanes<Real>(inside + i), splat_int<Real>(1));
      interior.add(deep);
      interior_entropy.add(deep.choose(h, Vec<Real>{}));
    }
  }

  inline void settle(std::int64_t *row) const {
    row[segment_word::kVoxels] += voxels.total();
    row[segment_word::kInterior] += interior.total();
    row[segment_word::kBadEntropy] += entropy.bad.total();
    row[segment_word::kBadInformation] += information.bad.total();
    add_real(row + segment_word::kConfidence, confidence.total());
    add_real(row + segment_word::kBinaryEntropy, binary.total());
    add_real(row + segment_word::kEntropy, entropy.sum.total());
    add_real(row + segment_word::kInformation, information.sum.total());
    add_real(row + segment_word::kInteriorEntropy, interior_entropy.total());
  }
};

template <typename Real>
static void add_class(const SegmentBlock<Real> &b, std::int64_t c, std::int64_t *row) {
  const Real *mean = b.mean + c * b.mean_pitch;
  const std::int64_t plane = b.multilabel ? c * b.tile_pitch : 0;
  const std::int32_t *label = b.label + plane;
  const std::int32_t *inside = b.interior == nullptr ? nullptr : b.interior + plane;
  const IntVec<Real> wanted = splat_int<Real>(b.multilabel ? 1 : c);
  const Vec<Real> low = splat<Real>(static_cast<Real>(-kOutOfRange));
  const Vec<Real> high = splat<Real>(static_cast<Real>(1.0 + kOutOfRange));
  FixedPointSum<Real> soft;
  LaneCounter<Real> bad;
  ClassSums<Real> segment;
  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    const Mask<Real> kept = Mask<Real>::set(b.keep + i);
    const Vec<Real> raw = load(mean + i);
    const Mask<Real> in_range = between<Real>(low, raw, high);
    const Mask<Real> good = kept & in_range;
    bad.add(kept.without(in_range));
    const Vec<Real> p = at_least<Real>(good.choose(raw, Vec<Real>{}), Real{0});
    soft.add(p);
    const Mask<Real> member = good & Mask<Real>::equal(load_lanes<Real>(label + i), wanted);
    if (member.bits() != 0) {
      segment.add(b, i, inside, member, p);
    }
  }
  row[segment_word::kBadMean] += bad.total();
  add_real(row + segment_word::kSoft, soft.total());
  segment.settle(row);
}

template <typename Real> static void add_segments(const SegmentBlock<Real> &b) {
  for (std::int64_t c = 0; c < b.classes; ++c) {
    std::int64_t *row = b.rows + c * segment_word::kWords;
    add_class<Real>(b, c, row);
    if (b.votes != nullptr) {
      add_votes<Real>(b, c, row);
    }
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
