// The histogram of the entropies of right and wrong predictions. Included only by the statistics
// stage of one instruction set.
#pragma once

#include "cpu/kernels.h"
#include "cpu/vec_math.h"

namespace fastcal::cpu::FASTCAL_ISA {

// h - p ln p, with the logarithm of the statistics and 0 ln 0 = 0.
template <typename Real> static inline Vec<Real> less_p_ln_p(Vec<Real> h, Vec<Real> p) {
  constexpr Real kTiny = static_cast<Real>(sizeof(Real) == 4 ? __FLT_MIN__ : __DBL_MIN__);
  Vec<Real> log = at_least<Real>(p, kTiny);
  log_exact_steps<Real, 1>(&log);
  return h - p * log;
}

// Adds a vector of entropies to bins {count, hits}.
template <typename Real>
static inline void add_entropies(const CountBlock<Real> &b, Vec<Real> h, std::uint32_t kept,
                                 std::uint32_t correct) {
  std::int64_t *const cells = b.row + b.layout.entropy_cells();
  const std::int64_t last = b.layout.entropy_bins - 1;
  alignas(64) Real scaled[Lanes<Real>::kCount];
  store(scaled, h * b.entropy_scale);
  for (; kept != 0; kept &= kept - 1) {
    const int lane = __builtin_ctz(kept);
    std::int64_t bin = static_cast<std::int64_t>(scaled[lane]);
    bin = bin < 0 ? 0 : bin;
    bin = bin > last ? last : bin;
    cells[kFineWords * bin] += 1;
    cells[kFineWords * bin + 1] += (correct >> lane) & 1;
  }
}

// Counts one entropy per voxel or, when multilabel, one per voxel and class: that of a Bernoulli
// variable.
template <typename Real> static void count_entropy(const CountBlock<Real> &b) {
  const std::int64_t classes = b.layout.num_classes;
  for (std::int64_t i = 0; i < b.voxels; i += Lanes<Real>::kCount) {
    const std::uint32_t kept = Mask<Real>::set(b.keep + i).bits();
    if (kept == 0) {
      continue;
    }
    Vec<Real> h = {};
    for (std::int64_t c = 0; c < classes; ++c) {
      const Vec<Real> p = load(b.mean + c * b.mean_pitch + i);
      h = less_p_ln_p<Real>(h, p);
      if (b.multilabel || c == classes - 1) {
        const std::int64_t plane = b.multilabel ? c * b.pitch : 0;
        if (b.multilabel) {
          h = less_p_ln_p<Real>(h, at_least<Real>(Real{1} - p, Real{0}));
        }
        const Mask<Real> correct = Mask<Real>::equal(load_lanes<Real>(b.label + plane + i),
                                                     load_lanes<Real>(b.target + plane + i));
        add_entropies<Real>(b, h, kept, correct.bits());
        h = Vec<Real>{};
      }
    }
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
