// Adds a plane of values to its histogram. Included only by the statistics stage of one instruction
// set.
#pragma once

#include "cpu/kernels.h"
#include "cpu/vec_math.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real> struct Thresholds {
  const Real *values;
  std::int64_t count;
};

// The voxels of a block that lie neither in the first nor in the last bin. They are gathered, so
// that their bins are found by whole vectors.
template <typename Real> struct Leftovers {
  alignas(64) Real values[kMaxBlockVoxels + kLaneMultiple];
  alignas(64) std::int32_t hits[kMaxBlockVoxels + kLaneMultiple];
  std::int64_t count = 0;

  // Gathers the lanes of `which` out of the values at `from`; `hit` has one bit per lane, set for a
  // hit.
  inline void add(const Real *from, std::uint32_t which, std::uint32_t hit) {
    constexpr std::uint32_t kAll = (1U << Lanes<Real>::kCount) - 1;
    if (which == kAll) {
      store(values + count, load(from));
      for (std::int64_t lane = 0; lane < Lanes<Real>::kCount; ++lane) {
        hits[count + lane] = -static_cast<std::int32_t>((hit >> lane) & 1);
      }
      count += Lanes<Real>::kCount;
      return;
    }
    for (; which != 0; which &= which - 1) {
      const int lane = __builtin_ctz(which);
      values[count] = from[lane];
      hits[count] = -static_cast<std::int32_t>((hit >> lane) & 1);
      ++count;
    }
  }
};

// With up to this many bins, thresholds are compared one after another, and the counts are kept on
// the stack.
constexpr std::int64_t kTableCells = 64;

template <typename Real>
static inline std::int64_t search_cell(const Thresholds<Real> &bins, Real p) {
  std::int64_t low = 0;
  std::int64_t high = bins.count;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    const bool above = p > bins.values[middle];
    low = above ? middle + 1 : low;
    high = above ? high : middle;
  }
  return low;
}

// The number of thresholds that each value lies above.
template <typename Real>
static inline IntVec<Real> cells_above(const Thresholds<Real> &bins, Vec<Real> p) {
  IntVec<Real> above = {};
  for (std::int64_t k = 0; k < bins.count; ++k) {
    above -= p > bins.values[k];
  }
  return above;
}

#if FASTCAL_VECTOR_BYTES == 64
// The same for fewer thresholds than one or two vectors of floats hold, by bisection: each lane
// picks its next threshold from registers.
template <int kVectors>
static inline IntVec<float> cells_by_halving(const Thresholds<float> &bins, Vec<float> p) {
  const __m512 middle = _mm512_set1_ps(bins.values[8 * kVectors - 1]);
  __m512i cell = _mm512_maskz_set1_epi32(_mm512_cmp_ps_mask(p, middle, _CMP_GT_OQ), 8 * kVectors);
#pragma GCC unroll 4
  for (int step = 4 * kVectors; step > 0; step /= 2) {
    const float *from = bins.values + step - 1;
    const __m512 threshold =
        kVectors == 1 ? _mm512_permutexvar_ps(cell, load(from))
                      : _mm512_permutex2var_ps(load(from), cell, load(from + kLaneMultiple));
    cell = _mm512_mask_add_epi32(cell, _mm512_cmp_ps_mask(p, threshold, _CMP_GT_OQ), cell,
                                 _mm512_set1_epi32(step));
  }
  return reinterpret_cast<IntVec<float>>(cell);
}
static_assert(kThresholdPadding >= 2 * kLaneMultiple);
#endif

// Calls f with the function that maps a vector of values to their cells.
template <typename Real, typename Function>
static inline __attribute__((always_inline)) void with_cells(const Thresholds<Real> &bins,
                                                             const Function &f) {
#if FASTCAL_VECTOR_BYTES == 64
  if constexpr (sizeof(Real) == 4) {
    if (bins.count < kLaneMultiple) {
      return f([&](Vec<Real> p) { return cells_by_halving<1>(bins, p); });
    }
    if (bins.count < 2 * kLaneMultiple) {
      return f([&](Vec<Real> p) { return cells_by_halving<2>(bins, p); });
    }
  }
#endif
  f([&](Vec<Real> p) { return cells_above<Real>(bins, p); });
}

template <typename Real>
static inline void find_cells(const Thresholds<Real> &bins, Vec<Real> p, const Real *values,
                              typename Lanes<Real>::Int *cell_of) {
  if (bins.count < kTableCells) {
    store(cell_of, cells_above<Real>(bins, p));
    return;
  }
  for (std::int64_t lane = 0; lane < Lanes<Real>::kCount; ++lane) {
    cell_of[lane] = static_cast<typename Lanes<Real>::Int>(search_cell(bins, values[lane]));
  }
}

// A voxel is one word: its value in fixed point, below a count of one. The sum of the values of a
// block, at most 1.001 each, does not reach the bits of the count. So one addition to memory does
// both.
constexpr int kCountShift = 52;
static_assert(kMaxBlockVoxels * 2 <= std::int64_t{1} << (kCountShift - kFractionBits));
static_assert(kMaxBlockVoxels < std::int64_t{1} << (63 - kCountShift));

// Neighbouring voxels often fall into the same bin. They are added to different tables in turn, so
// that an addition does not wait for the one before it.
constexpr int kTables = 8;

// Counts few bins by tables. They have an entry for each bin and state of a voxel, 0 to kStates -
// 1, and a last one for what does not count. Calls add(k, words) with the words of the states for
// every bin.
template <int kStates, typename Real, typename Kept, typename State, typename Add>
static void count_in_tables(const Real *values, std::int64_t n, const Thresholds<Real> &bins,
                            const Kept &kept, const State &state, const Add &add) {
  constexpr std::int64_t kCount = Lanes<Real>::kCount;
  constexpr std::int64_t kWords = FASTCAL_VECTOR_BYTES / 8;             // of a vector
  alignas(64) std::uint64_t tables[kTables][kStates * kTableCells + 8]; // `nowhere` may wrap
  const std::int64_t nowhere = kStates * (bins.count + 1);
  const std::int64_t used = nowhere + 8 - nowhere % 8; // entries in whole vectors
  for (int t = 0; t < kTables; ++t) {
    for (std::int64_t entry = 0; entry < used; entry += kWords) {
      store(tables[t] + entry, Longs{});
    }
  }
  alignas(64) typename Lanes<Real>::Int entry_of[kMaxBlockVoxels + kLaneMultiple];
  alignas(64) std::int64_t words[kMaxBlockVoxels + kLaneMultiple];
  const auto add_vector = [&](std::int64_t i) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (std::int64_t lane = 0; lane < kCount; ++lane) {
      tables[lane % kTables][static_cast<std::uint32_t>(entry_of[i + lane])] +=
          static_cast<std::uint64_t>(words[i + lane]);
    }
  };
  // The additions follow some vectors behind the stores whose results they read, so as not to wait
  // for them.
  constexpr std::int64_t kBehind = 8 * kCount;
  with_cells<Real>(bins, [&](const auto &cells_of) __attribute__((always_inline)) {
    for (std::int64_t i = 0; i < n; i += kCount) {
      const Vec<Real> p = load(values + i);
      FixedPointSum<Real>::each(p, words + i, std::int64_t{1} << kCountShift);
      const IntVec<Real> entry = kStates * cells_of(p) + state(i);
      store(entry_of + i, kept(i).choose(entry, splat_int<Real>(nowhere)));
      if (i >= kBehind) {
        add_vector(i - kBehind);
      }
    }
  });
  const std::int64_t whole = (n + kCount - 1) / kCount * kCount;
  for (std::int64_t i = whole > kBehind ? whole - kBehind : 0; i < whole; i += kCount) {
    add_vector(i);
  }
  for (std::int64_t entry = 0; entry < used; entry += kWords) {
    Longs sum = load_as<Longs>(tables[0] + entry);
    for (int t = 1; t < kTables; ++t) {
      sum += load_as<Longs>(tables[t] + entry);
    }
    store(tables[0] + entry, sum);
  }
  for (std::int64_t k = 0; k <= bins.count; ++k) {
    add(k, tables[0] + kStates * k);
  }
}

// Adds the word of hits or of misses to a cell {count, hits, sum hi, sum lo}.
static inline void add_word(std::int64_t *cell, std::uint64_t word, bool hits) {
  const std::int64_t count = static_cast<std::int64_t>(word >> kCountShift);
  cell[0] += count;
  cell[1] += hits ? count : 0;
  cell[3] += static_cast<std::int64_t>(word & ((std::uint64_t{1} << kCountShift) - 1));
}

// Adds a plane of values to its histogram, entirely by tables.
template <typename Real, typename Kept, typename Hit>
static void count_spread(const Real *values, std::int64_t n, const Thresholds<Real> &bins,
                         const Kept &kept, const Hit &hit, std::int64_t *cells) {
  const auto state = [&](std::int64_t i) {
    return hit(i).choose(splat_int<Real>(1), IntVec<Real>{});
  };
  const auto add = [&](std::int64_t k, const std::uint64_t *words) {
    add_word(cells + kBinWords * k, words[0], false);
    add_word(cells + kBinWords * k, words[1], true);
  };
  count_in_tables<2, Real>(values, n, bins, kept, state, add);
}

// Adds the plane of a class to its histogram and, where the class is the label, to the top-label
// one as well.
template <typename Real>
static void count_spread_class(const CountBlock<Real> &b, std::int64_t c,
                               const Thresholds<Real> &bins, std::int64_t *cells,
                               std::int64_t *top_cells) {
  const IntVec<Real> wanted = splat_int<Real>(c);
  const auto kept = [&](std::int64_t i) { return Mask<Real>::set(b.keep + i); };
  const auto is = [&](const std::int32_t *classes, int state) {
    return Mask<Real>::equal(load_lanes<Real>(classes), wanted)
        .choose(splat_int<Real>(state), IntVec<Real>{});
  };
  const auto state = [&](std::int64_t i) { return is(b.target + i, 1) + is(b.label + i, 2); };
  const auto add = [&](std::int64_t k, const std::uint64_t *words) {
    for (int s = 0; s < 4; ++s) {
      add_word(cells + kBinWords * k, words[s], s % 2 == 1);
    }
    add_word(top_cells + kBinWords * k, words[2], false);
    add_word(top_cells + kBinWords * k, words[3], true);
  };
  count_in_tables<4, Real>(b.mean + c * b.mean_pitch, b.voxels, bins, kept, state, add);
}

template <typename Real>
static void count_leftovers(Leftovers<Real> &left, const Thresholds<Real> &bins,
                            std::int64_t *cells) {
  if (left.count == 0) {
    return;
  }
  if (bins.count < kTableCells) {
    const auto kept = [&](std::int64_t i) { return Mask<Real>::first(left.count - i); };
    const auto hit = [&](std::int64_t i) { return Mask<Real>::set(left.hits + i); };
    count_spread<Real>(left.values, left.count, bins, kept, hit, cells);
    return;
  }
  constexpr std::int64_t kCount = Lanes<Real>::kCount;
  for (std::int64_t i = 0; i < left.count; i += kCount) {
    alignas(64) std::int64_t fixed[kCount];
    FixedPointSum<Real>::each(load(left.values + i), fixed);
    for (std::int64_t lane = 0; lane < kCount && i + lane < left.count; ++lane) {
      std::int64_t *cell = cells + kBinWords * search_cell(bins, left.values[i + lane]);
      cell[0] += 1;
      cell[1] -= left.hits[i + lane];
      cell[3] += fixed[lane];
    }
  }
}

// Whether many values of a plane fall between the outer two of a few bins, judged by every eighth
// vector.
template <typename Real>
static inline bool is_spread(const Real *values, std::int64_t voxels,
                             const Thresholds<Real> &bins) {
  if (bins.count < 1 || bins.count >= kTableCells) {
    return false;
  }
  constexpr std::int64_t kStep = 8 * Lanes<Real>::kCount;
  const Vec<Real> first = splat<Real>(bins.values[0]);
  const Vec<Real> last = splat<Real>(bins.values[bins.count - 1]);
  int inside = 0;
  int seen = 0;
  for (std::int64_t i = 0; i < voxels; i += kStep) {
    const Vec<Real> p = load(values + i);
    inside +=
        __builtin_popcount(Mask<Real>::above(p, first).without(Mask<Real>::above(p, last)).bits());
    seen += static_cast<int>(Lanes<Real>::kCount);
  }
  return 8 * inside > seen;
}

// Adds one plane of values to its histogram. Nearly all voxels of a real volume lie in the first or
// the last bin. Those are counted by whole vectors, and the others are gathered.
template <typename Real, typename Hit>
static void count_bins(const Real *values, const std::int32_t *keep, std::int64_t voxels,
                       const Thresholds<Real> &bins, const Hit &hit, std::int64_t *cells) {
  constexpr Real kInfinity = static_cast<Real>(__builtin_inf());
  const Real first = bins.count > 0 ? bins.values[0] : kInfinity;
  const Real last = bins.count > 0 ? bins.values[bins.count - 1] : kInfinity;
  if (is_spread<Real>(values, voxels, bins)) {
    const auto kept = [&](std::int64_t i) { return Mask<Real>::set(keep + i); };
    return count_spread<Real>(values, voxels, bins, kept, hit, cells);
  }
  std::int64_t first_count = 0;
  std::int64_t first_hits = 0;
  std::int64_t last_count = 0;
  std::int64_t last_hits = 0;
  FixedPointSum<Real> first_sum;
  FixedPointSum<Real> last_sum;
  Leftovers<Real> left;
  // With more lanes than this between the outer bins, the whole vector is gathered, which takes one
  // branch instead of one per lane.
  constexpr int kMixedLanes = static_cast<int>(Lanes<Real>::kCount / 4);
  for (std::int64_t i = 0; i < voxels; i += Lanes<Real>::kCount) {
    const Vec<Real> p = load(values + i);
    const Mask<Real> kept = Mask<Real>::set(keep + i);
    const Mask<Real> in_first = kept.without(Mask<Real>::above(p, splat<Real>(first)));
    const Mask<Real> in_last = kept & Mask<Real>::above(p, splat<Real>(last));
    const std::uint32_t hits = hit(i).bits();
    const std::uint32_t first_bits = in_first.bits();
    const std::uint32_t last_bits = in_last.bits();
    const std::uint32_t rest = kept.bits() & ~(first_bits | last_bits);
    if (__builtin_popcount(rest) > kMixedLanes) {
      left.add(values + i, kept.bits(), hits);
      continue;
    }
    if (first_bits != 0) {
      first_count += __builtin_popcount(first_bits);
      first_hits += __builtin_popcount(first_bits & hits);
      first_sum.add(in_first.choose(p, Vec<Real>{}));
    }
    if (last_bits != 0) {
      last_count += __builtin_popcount(last_bits);
      last_hits += __builtin_popcount(last_bits & hits);
      last_sum.add(in_last.choose(p, Vec<Real>{}));
    }
    if (rest != 0) {
      left.add(values + i, rest, hits);
    }
  }
  std::int64_t *last_cell = cells + kBinWords * bins.count;
  cells[0] += first_count;
  cells[1] += first_hits;
  cells[3] += first_sum.total();
  last_cell[0] += last_count;
  last_cell[1] += last_hits;
  last_cell[3] += last_sum.total();
  count_leftovers<Real>(left, bins, cells);
}

} // namespace fastcal::cpu::FASTCAL_ISA
