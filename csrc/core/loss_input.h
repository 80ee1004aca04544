// What a loss reads: logits [groups, images, classes, ...] and targets [groups, images, ...].
#pragma once

#include <cstdint>
#include <vector>

#include "core/loss.h"

namespace fastcal {

struct LossInput {
  std::vector<std::int64_t> shape; // of the targets
  std::int64_t classes = 0;
  View logits;
  View target;
  LossReading reading;
};

} // namespace fastcal
