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

// The voxels of a block that lie neither in the first nor in the last bin, gathered so that their
// bins are found by whole vectors.
template <typename Real> struct Leftovers {
  alignas(64) Real values[kMaxBlockVoxels + kLaneMultiple];
  alignas(64) std::int32_t hits[kMaxBlockVoxels + kLaneMultiple];
  std::int64_t count = 0;

  // The lanes of `which` out of the values at `from`; `hit` has a bit for every hit.
  inline void add(const Real *from, std::uint32_t which, std::uint32_t hit) {
    constexpr std::uint32_t kAll = (1U << Lanes<Real>::kCount) - 1;
    if (which == kAll) {
      store(values + count, load(from));
      for (std::int64_t lane = 0; lane < Lanes<Real>::kCount; ++lane) {
        hits[count + lane] = static_cast<std::int32_t>((hit >> lane) & 1);
      }
      count += Lanes<Real>::kCount;
      return;
    }
    for (; which != 0; which &= which - 1) {
      const int lane = __builtin_ctz(which);
      values[count] = from[lane];
      hits[count] = static_cast<std::int32_t>((hit >> lane) & 1);
      ++count;
    }
  }
};

// Up to so many bins, thresholds are compared one after another and counts kept on the stack.
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

// How many thresholds each value lies above.
template <typename Real>
static inline IntVec<Real> cells_above(const Thresholds<Real> &bins, Vec<Real> p) {
  IntVec<Real> above = {};
  for (std::int64_t k = 0; k < bins.count; ++k) {
    above -= p > bins.values[k];
  }
  return above;
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

// A voxel is one word, its value as fixed point under a count of one: the values of a block, at
// most 1.001 each, do not reach the counts, and the word is added in memory once.
constexpr int kCountShift = 52;
static_assert(kMaxBlockVoxels * 2 <= std::int64_t{1} << (kCountShift - kFractionBits));
static_assert(kMaxBlockVoxels < std::int64_t{1} << (63 - kCountShift));

// Neighbouring voxels often fall in one bin: tables in turn keep an addition from waiting for the
// one before it.
constexpr int kTables = 8;

// Few bins: hits and misses in entries of their own.
template <typename Real>
static void count_in_tables(const Leftovers<Real> &left, const Thresholds<Real> &bins,
                            std::int64_t *cells) {
  constexpr std::int64_t kCount = Lanes<Real>::kCount;
  alignas(64) std::int64_t tables[2 * kTableCells][kTables];
  std::memset(tables, 0, sizeof tables[0] * 2 * static_cast<std::size_t>(bins.count + 1));
  for (std::int64_t i = 0; i < left.count; i += kCount) {
    alignas(64) typename Lanes<Real>::Int entry_of[kCount];
    alignas(64) std::int64_t words[kCount];
    const Vec<Real> p = load(left.values + i);
    FixedPointSum<Real>::each(p, words, std::int64_t{1} << kCountShift);
    for (std::int64_t lane = left.count - i; lane < kCount; ++lane) {
      words[lane] = 0; // past the end
    }
    store(entry_of, 2 * cells_above<Real>(bins, p) + load_lanes<Real>(left.hits + i));
#pragma GCC unroll 16
    for (std::int64_t lane = 0; lane < kCount; ++lane) {
      tables[entry_of[lane]][lane % kTables] += words[lane];
    }
  }
  constexpr std::int64_t kSum = (std::int64_t{1} << kCountShift) - 1;
  for (std::int64_t k = 0; k <= bins.count; ++k) {
    std::int64_t missed = 0;
    std::int64_t hit = 0;
    for (int t = 0; t < kTables; ++t) {
      missed += tables[2 * k][t];
      hit += tables[2 * k + 1][t];
    }
    std::int64_t *cell = cells + kBinWords * k;
    cell[0] += (missed >> kCountShift) + (hit >> kCountShift);
    cell[1] += hit >> kCountShift;
    cell[3] += (missed & kSum) + (hit & kSum);
  }
}

template <typename Real>
static void count_leftovers(Leftovers<Real> &left, const Thresholds<Real> &bins,
                            std::int64_t *cells) {
  if (left.count == 0) {
    return;
  }
  store(left.values + left.count, Vec<Real>{});
  for (std::int64_t lane = 0; lane < Lanes<Real>::kCount; ++lane) {
    left.hits[left.count + lane] = 0;
  }
  if (bins.count < kTableCells) {
    count_in_tables<Real>(left, bins, cells);
    return;
  }
  constexpr std::int64_t kCount = Lanes<Real>::kCount;
  for (std::int64_t i = 0; i < left.count; i += kCount) {
    alignas(64) std::int64_t fixed[kCount];
    FixedPointSum<Real>::each(load(left.values + i), fixed);
    for (std::int64_t lane = 0; lane < kCount && i + lane < left.count; ++lane) {
      std::int64_t *cell = cells + kBinWords * search_cell(bins, left.values[i + lane]);
      cell[0] += 1;
      cell[1] += left.hits[i + lane];
      cell[3] += fixed[lane];
    }
  }
}

// Adds one plane of values to its histogram. Nearly all voxels of a real volume lie in the first or
// the last bin: those are counted by whole vectors, the rest gathered.
template <typename Real, typename Hit>
static void count_bins(const Real *values, const std::int32_t *keep, std::int64_t voxels,
                       const Thresholds<Real> &bins, const Hit &hit, std::int64_t *cells) {
  constexpr Real kInfinity = static_cast<Real>(__builtin_inf());
  const Real first = bins.count > 0 ? bins.values[0] : kInfinity;
  const Real last = bins.count > 0 ? bins.values[bins.count - 1] : kInfinity;
  std::int64_t first_count = 0;
  std::int64_t first_hits = 0;
  std::int64_t last_count = 0;
  std::int64_t last_hits = 0;
  FixedPointSum<Real> first_sum;
  FixedPointSum<Real> last_sum;
  Leftovers<Real> left;
  // With more lanes than this between the outer bins, the whole vector is gathered: one path.
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
