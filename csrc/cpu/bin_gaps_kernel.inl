// Gaps between probability and outcome over one block of voxels, by bins of the probability, and
// the gradient by the logits of a loss that is a function of them. Compiled once per instruction
// set.
#pragma once

#include "cpu/bins.h"
#include "cpu/class_sums_kernel.inl"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real, int kClasses> struct Activate {
  static void run(const BinBlock<Real> &s) {
    const LogitBlock<Real> &b = s.block;
    const std::int64_t classes = kClasses > 0 ? kClasses : b.classes;
    const ExpScale<Real> scale(Real{1});
    Vec<Real> local[kClasses > 0 ? kClasses : 1];
    Vec<Real> *const e = kClasses > 0 ? local : lane_row<Vec<Real>>(b, 0);
    for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
      Vec<Real> top;
      const Vec<Real> total = exponentials<Real, kClasses>(b, i, scale, e, &top);
      const Vec<Real> inverse = reciprocal<Real>(total);
#pragma GCC unroll 8
      for (std::int64_t c = 0; c < classes; ++c) {
        store(s.probabilities + c * b.tile_pitch + i, e[c] * inverse);
      }
    }
  }
};

template <typename Real> static void activate(const BinBlock<Real> &s) {
  const LogitBlock<Real> &b = s.block;
  if (b.head == Activation::kSoftmax) {
    for_classes<Real, Activate>(s);
    return;
  }
  const ExpScale<Real> scale(Real{1});
  for (std::int64_t c = 0; c < b.classes; ++c) {
    for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
      store(s.probabilities + c * b.tile_pitch + i,
            sigmoid<Real>(load(b.logits + c * b.pitch + i), scale));
    }
  }
}

// The bins of the voxels of one class. Soft bins share a voxel: this gives the left one of the two,
// the share of the right one, and the derivative of that share by p.
template <typename Real> static void place_voxels(const BinBlock<Real> &s, const Real *p) {
  const Thresholds<Real> thresholds{s.thresholds, s.bins.count - 1};
  const Real width = static_cast<Real>(s.bins.count);
  const Vec<Real> last = splat<Real>(width - Real{1});
  for (std::int64_t i = 0; i < s.block.voxels; i += Lanes<Real>::kCount) {
    if (!s.bins.soft) {
      typename Lanes<Real>::Int cells[Lanes<Real>::kCount];
      find_cells<Real>(thresholds, load(p + i), p + i, cells);
      store_lanes<Real>(s.cell + i, load_as<IntVec<Real>>(cells));
      continue;
    }
    const Vec<Real> at = load(p + i) * width - Real{0.5}; // in bins, counted from the first centre
    const Vec<Real> inside = at > Real{0} ? (at > last ? last : at) : Vec<Real>{}; // 0 for NaN
    const IntVec<Real> left = __builtin_convertvector(inside, IntVec<Real>);
    const Vec<Real> along = at - __builtin_convertvector(left, Vec<Real>);
    const Vec<Real> positive = along < Real{0} ? Vec<Real>{} : along;
    const Vec<Real> share = positive > Real{1} ? splat<Real>(1) : positive;
    store_lanes<Real>(s.cell + i, left);
    store(s.share + i, share);
    store(s.growth + i, along == share ? splat<Real>(width) : Vec<Real>{});
  }
}

// p - y of the voxels of one class, and 0 where they do not count.
template <typename Real>
static void outcomes(const BinBlock<Real> &s, std::int64_t c, const Real *p) {
  const IntVec<Real> label = splat_int<Real>(c + s.block.first_label);
  for (std::int64_t i = 0; i < s.block.voxels; i += Lanes<Real>::kCount) {
    const IntVec<Real> target = load_lanes<Real>(s.block.target + i);
    const Mask<Real> dropped = Mask<Real>::equal(target, splat_int<Real>(-1));
    const Vec<Real> off =
        load(p + i) - Mask<Real>::equal(target, label).choose(splat<Real>(1), Vec<Real>{});
    store(s.off + i, dropped.choose(Vec<Real>{}, off));
  }
}

// Goes over all voxels once per bin, so that its sums stay in registers.
template <typename Real, bool kSoft>
static void add_bins(const BinBlock<Real> &s, double *__restrict gap, double *__restrict amount) {
  const std::int64_t count = s.bins.count;
  for (std::int64_t j = 0; j < count; ++j) {
    Doubles gaps = {};
    Doubles moved_gaps = {};
    Doubles shares = {};
    LaneCounter<Real> voxels;
    constexpr std::int64_t kStep = kRun * Lanes<Real>::kCount;
    for (std::int64_t first = 0; first < s.block.voxels; first += kStep) {
      const std::int64_t end = first + kStep < s.block.voxels ? first + kStep : s.block.voxels;
      Vec<Real> run[3] = {};
      for (std::int64_t i = first; i < end; i += Lanes<Real>::kCount) {
        const Mask<Real> here = Mask<Real>::equal(load_lanes<Real>(s.cell + i), splat_int<Real>(j));
        const Vec<Real> off = load(s.off + i);
        run[0] += here.choose(off, Vec<Real>{});
        voxels.add(here);
        if constexpr (kSoft) {
          const Vec<Real> share = here.choose(load(s.share + i), Vec<Real>{});
          run[1] += share * off;
          run[2] += share;
        }
      }
      widen(&gaps, run[0]);
      widen(&moved_gaps, run[1]);
      widen(&shares, run[2]);
    }
    const std::int64_t right = j + 1 < count ? j + 1 : j;
    const double moved = kSoft ? sum_of(moved_gaps) : 0.0;
    const double shared = kSoft ? sum_of(shares) : 0.0;
    gap[j] += sum_of(gaps) - moved;
    amount[j] += static_cast<double>(voxels.total()) - shared;
    gap[right] += moved;
    amount[right] += shared;
  }
}

// Goes over the voxels once, for hundreds of bins.
template <typename Real>
static void scatter(const BinBlock<Real> &s, double *__restrict gap, double *__restrict amount) {
  for (std::int64_t v = 0; v < s.block.voxels; ++v) {
    if (s.cell[v] < 0) {
      continue;
    }
    const std::int64_t left = s.cell[v];
    const std::int64_t right = left + 1 < s.bins.count ? left + 1 : left;
    const double share = s.bins.soft ? static_cast<double>(s.share[v]) : 0.0;
    const double off = static_cast<double>(s.off[v]);
    gap[left] += (1.0 - share) * off;
    amount[left] += 1.0 - share;
    gap[right] += share * off;
    amount[right] += share;
  }
}

constexpr std::int64_t kScannedBins = 64;

template <typename Real> static void bin_gaps(const BinBlock<Real> &s, double *sums) {
  const LogitBlock<Real> &b = s.block;
  activate<Real>(s);
  for (std::int64_t c = 0; c < b.classes; ++c) {
    const Real *p = s.probabilities + c * b.tile_pitch;
    double *gap = sums + c * s.bins.words();
    double *amount = gap + s.bins.count;
    place_voxels<Real>(s, p);
    outcomes<Real>(s, c, p);
    std::int32_t reference = 0;
    for (std::int64_t v = 0; v < b.voxels; ++v) {
      reference += b.target[v] == static_cast<std::int32_t>(c) + b.first_label ? 1 : 0;
      s.cell[v] = b.target[v] == -1 ? -1 : s.cell[v];
    }
    amount[s.bins.count] += reference;
    if (s.bins.count > kScannedBins) {
      scatter<Real>(s, gap, amount);
    } else if (s.bins.soft) {
      add_bins<Real, true>(s, gap, amount);
    } else {
      add_bins<Real, false>(s, gap, amount);
    }
  }
}

// table[index] for each lane.
template <typename Real> static inline Vec<Real> look_up(const Real *table, IntVec<Real> index) {
  if constexpr (sizeof(Real) == 4) {
#if FASTCAL_VECTOR_BYTES == 64 && defined(__AVX512F__)
    return _mm512_i32gather_ps(reinterpret_cast<__m512i>(index), table, 4);
#elif FASTCAL_VECTOR_BYTES == 32 && defined(__AVX2__)
    return _mm256_i32gather_ps(table, reinterpret_cast<__m256i>(index), 4);
#endif
  }
  Vec<Real> found{};
  for (std::int64_t lane = 0; lane < Lanes<Real>::kCount; ++lane) {
    found[lane] = table[index[lane]];
  }
  return found;
}

// d loss / d p of the voxels of one class.
template <typename Real>
static void bin_slopes(const BinBlock<Real> &s, const Real *gap, Real *slope) {
  const Real *amount = gap + s.bins.count;
  const IntVec<Real> last = splat_int<Real>(s.bins.count - 1);
  for (std::int64_t i = 0; i < s.block.voxels; i += Lanes<Real>::kCount) {
    const IntVec<Real> cell = load_lanes<Real>(s.cell + i);
    const Vec<Real> left = look_up<Real>(gap, cell);
    Vec<Real> value = left;
    if (s.bins.soft) {
      const IntVec<Real> right = cell < last ? cell + 1 : last;
      const Vec<Real> step = look_up<Real>(gap, right) - left;
      const Vec<Real> rise = look_up<Real>(amount, right) - look_up<Real>(amount, cell);
      value += step * load(s.share + i) + load(s.growth + i) * (step * load(s.off + i) + rise);
    }
    store(slope + i, value);
  }
}

template <typename Real>
static void bin_gradient(const BinBlock<Real> &s, const Real *factors, Real *gradient) {
  const LogitBlock<Real> &b = s.block;
  const bool softmax = b.head == Activation::kSoftmax;
  activate<Real>(s);
  for (std::int64_t c = 0; c < b.classes; ++c) {
    const Real *p = s.probabilities + c * b.tile_pitch;
    place_voxels<Real>(s, p);
    outcomes<Real>(s, c, p);
    bin_slopes<Real>(s, factors + c * s.bins.words(), gradient + c * b.tile_pitch);
  }
  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    const IntVec<Real> target = load_lanes<Real>(b.target + i);
    const Mask<Real> dropped = Mask<Real>::equal(target, splat_int<Real>(-1));
    Vec<Real> common = {};
    for (std::int64_t c = 0; softmax && c < b.classes; ++c) {
      common +=
          load(s.probabilities + c * b.tile_pitch + i) * load(gradient + c * b.tile_pitch + i);
    }
    for (std::int64_t c = 0; c < b.classes; ++c) {
      const Vec<Real> p = load(s.probabilities + c * b.tile_pitch + i);
      const Vec<Real> slope = load(gradient + c * b.tile_pitch + i);
      const Vec<Real> value = softmax ? p * (slope - common) : p * (Real{1} - p) * slope;
      store(gradient + c * b.tile_pitch + i, dropped.choose(Vec<Real>{}, value));
    }
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
