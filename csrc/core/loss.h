// The sums that losses are functions of. Mirrors fastcal/core/problem.py. Plain data, which the
// files of every instruction set include.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fastcal {

// Rows of the sums, each with one number per class. Mirrors fastcal/core/problem.py.
namespace sum {
constexpr std::int64_t kOverlap = 0;   // p of the voxels of the class
constexpr std::int64_t kPredicted = 1; // p
constexpr std::int64_t kSquared = 2;   // p^2
constexpr std::int64_t kReference = 3; // voxels of the class
constexpr std::int64_t kNll = 4;       // -ln p of the voxels of the class
constexpr std::int64_t kRest = 5;      // softmax: -ln p of all voxels; sigmoid: -ln (1 - p) of the
                                       // voxels of other classes
constexpr std::int64_t kRows = 6;
} // namespace sum

struct SumsWanted {
  bool overlaps = false; // the first four rows; the reference row is always wanted
  bool likelihood = false;
  bool rest = false; // with the likelihood
};

// Gaps p - y and amounts of voxels, by bins of p. A class has `count` gaps, as many amounts, and
// the number of its voxels.
struct Bins {
  std::int64_t count = 0;
  bool soft = false; // a voxel is shared between the two nearest bin centres

  std::int64_t words() const { return 2 * count + 1; }
};

struct LossReading {
  Activation head = Activation::kSoftmax;
  bool has_ignore_index = false;
  std::int64_t ignore_index = 0;
};

} // namespace fastcal
