// Rows of statistics outside the kernels: carries and additions of whole rows.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fastcal::cpu {

inline void carry(std::int64_t *hi_lo) {
  hi_lo[0] += hi_lo[1] >> kFractionBits;
  hi_lo[1] &= kFractionMask;
}

// The kernels add to the low words of the bins only; this carries into the high words.
inline void carry_bins(const StatisticsLayout &layout, std::int64_t *row) {
  for (std::int64_t cell = layout.top_label_bins(); cell < layout.moment_bins();
       cell += kBinWords) {
    carry(row + cell + 2);
  }
  for (std::int64_t sum = layout.moment_bins(); sum < layout.fine_top_label(); sum += 2) {
    carry(row + sum);
  }
}

inline void add_row(const StatisticsLayout &layout, const std::int64_t *from, std::int64_t *to) {
  for (std::int64_t w = 0; w < layout.words(); ++w) {
    to[w] += from[w];
  }
  for (const int hi : {word::kBrier, word::kNll}) {
    carry(to + hi);
  }
  carry_bins(layout, to);
}

} // namespace fastcal::cpu
