// Preconditions. A violation is thrown where it is found, and the binding turns it into a
// ValueError.
#pragma once

#include <stdexcept>

namespace fastcal {

inline void expects(bool condition, const char *reason) {
  if (!condition) {
    throw std::invalid_argument(reason);
  }
}

} // namespace fastcal
