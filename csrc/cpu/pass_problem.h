// What one call asks of the pass: a single call for everything, one member of a stream, or the end
// of a stream.
#pragma once

#include <cstdint>

#include "cpu/ensemble.h"

namespace fastcal::cpu {

struct PassProblem {
  Reading reading;
  std::int64_t classes = 0;
  Members members; // none at the end of a stream
  View state;      // data is null without a streamed state
  StateLayout layout;
  bool finishes = true; // false: the sums go back to the state
  MemberTotals totals;
  Finish finish;

  bool counts() const { return finishes && finish.counting.wanted; }
  std::int64_t label_planes() const { return reading.multilabel ? classes : 1; }
  Activation activation() const {
    return reading.multilabel ? Activation::kSigmoid : reading.activation;
  }
};

} // namespace fastcal::cpu
