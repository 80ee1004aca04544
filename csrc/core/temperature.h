// What a pass of temperature scaling reads and the sums it gives. Mirrors fastcal/core/problem.py.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fastcal {

// What probabilities of 0 and 1 are read as.
struct ProbabilityFloor {
  double tiny = 0.0; // p below it is read as it
  double rest = 0.0; // so is 1 - p of a Bernoulli
};

// Sums of doubles: loss, then the gradient, then the Hessian, row by row.
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
  View target; // of the voxel shape; with classes when multilabel
  View mask;   // data is null without one
  std::int64_t classes = 0;
  bool has_ignore_index = false;
  std::int64_t ignore_index = 0;
  bool from_logits = true;
  bool bernoulli = false;
  bool multilabel = false;
  ProbabilityFloor floor;
  bool per_class = false;
  const double *inverse_temperatures = nullptr; // [classes] when per class, else [1]
  std::int64_t *counts = nullptr;               // temperature_count, added to
  double *sums = nullptr;                       // TemperatureLayout, added to
};

} // namespace fastcal
