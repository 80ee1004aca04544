// What a pass of temperature scaling reads, and the sums it gives. Mirrors fastcal/core/problem.py.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fastcal {

// What probabilities near 0 and 1 are read as.
struct ProbabilityFloor {
  double tiny = 0.0; // a smaller p is read as this
  double rest = 0.0; // and so is a smaller 1 - p of a Bernoulli variable
};

// Sums of doubles: first the loss, then the gradient, then the Hessian, row by row.
struct TemperatureLayout {
  std::int64_t parameters = 1; // 1, or the number of classes

  static constexpr std::int64_t kLoss = 0;
  static constexpr std::int64_t kGradient = 1;
  std::int64_t hessian() const { return kGradient + parameters; }
  std::int64_t words() const { return hessian() + parameters * parameters; }
};

namespace temperature_count {
constexpr int kVoxels = 0;
constexpr int kInvalid = 1;
constexpr int kBadTarget = 2;
constexpr int kWords = 3;
} // namespace temperature_count

struct TemperatureProblem {
  View values; // [classes] of the voxel shape
  View target; // of the voxel shape, and [classes] of it when multilabel
  View mask;   // data is null without a mask
  std::int64_t classes = 0;
  bool has_ignore_index = false;
  std::int64_t ignore_index = 0;
  bool from_logits = true;
  bool bernoulli = false;
  bool multilabel = false;
  ProbabilityFloor floor;
  bool per_class = false;
  const double *inverse_temperatures = nullptr; // [classes] when per class, else [1]
  std::int64_t *counts = nullptr;               // added to, see temperature_count
  double *sums = nullptr;                       // added to, see TemperatureLayout
};

} // namespace fastcal
