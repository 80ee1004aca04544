// The one assertion of the C++ tests. It reports and counts a failure, and goes on.
#pragma once

#include <cstdio>

namespace check {

inline int &failures() {
  static int count = 0;
  return count;
}

} // namespace check

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                         \
      ++check::failures();                                                                         \
    }                                                                                              \
  } while (false)
