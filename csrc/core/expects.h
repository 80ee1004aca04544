// Preconditions: thrown where found, turned into a ValueError at the binding.
#pragma once

#include <stdexcept>

namespace fastcal {

inline void expects(bool condition, const char *reason) {
  if (!condition) {
    throw std::invalid_argument(reason);
  }
}

} // namespace fastcal
