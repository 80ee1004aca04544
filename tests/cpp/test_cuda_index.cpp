// The index arithmetic of the CUDA kernels, run on the host: indices beyond 31 bits, without the
// memory that such volumes take.
#include <cstdint>
#include <initializer_list>

#include "check.h"
#include "cuda/arguments.h"

using fastcal::cuda::Divider;
using fastcal::cuda::Grid;
using fastcal::cuda::offset_of;

namespace {

constexpr std::int64_t kLimit = std::int64_t{1} << 31;

void divides_like_the_operator() {
  for (const std::int64_t divisor :
       {1LL,       2LL,        3LL,          5LL,          7LL,          31LL,        32LL,
        33LL,      155LL,      240LL,        641LL,        65535LL,      65536LL,     65537LL,
        8928000LL, 16777216LL, 1000000007LL, 1073741824LL, 2147483646LL, 2147483647LL}) {
    const Divider divider(divisor);
    for (const std::int64_t around : {std::int64_t{0}, divisor, 2 * divisor, kLimit / 2,
                                      kLimit / divisor * divisor, kLimit - 1}) {
      for (std::int64_t n = around - 2; n <= around + 2; ++n) {
        if (n >= 0 && n < kLimit) {
          CHECK(divider.divide(static_cast<std::uint32_t>(n)) == n / divisor);
        }
      }
    }
  }
}

Grid grid_of(std::int64_t a, std::int64_t b, std::int64_t c) {
  Grid grid;
  grid.axes = 3;
  grid.narrow = a * b * c < kLimit;
  const std::int64_t extents[] = {a, b, c};
  for (int axis = 0; axis < 3; ++axis) {
    grid.extents[axis] = extents[axis];
    grid.dividers[axis] = Divider(extents[axis]);
  }
  return grid;
}

void finds_voxels_of_a_cropped_volume() {
  const Grid grid = grid_of(7, 11, 13);
  const std::int64_t strides[fastcal::kMaxAxes] = {10000, 100, 2};
  for (std::int64_t i = 0; i < 7 * 11 * 13; ++i) {
    CHECK(offset_of(grid, strides, i) == i / 143 * 10000 + i / 13 % 11 * 100 + i % 13 * 2);
  }
}

void counts_beyond_two_to_the_31() {
  const Grid grid = grid_of(4, 65537, 65539); // 17.2e9 voxels
  CHECK(!grid.narrow);
  const std::int64_t row = 65539 * 3;
  const std::int64_t strides[fastcal::kMaxAxes] = {row * 65537 + 5, row, 3};
  for (const std::int64_t i :
       {kLimit - 1, kLimit, kLimit + 1, 4 * kLimit + 12345, std::int64_t{4} * 65537 * 65539 - 1}) {
    const std::int64_t plane = 65537LL * 65539;
    const std::int64_t expected =
        i / plane * strides[0] + i / 65539 % 65537 * strides[1] + i % 65539 * strides[2];
    CHECK(offset_of(grid, strides, i) == expected);
  }
}

void one_long_row_needs_no_division() {
  Grid grid;
  grid.axes = 1;
  grid.narrow = false;
  grid.extents[0] = 5 * kLimit;
  const std::int64_t strides[fastcal::kMaxAxes] = {2};
  CHECK(offset_of(grid, strides, 5 * kLimit - 1) == 10 * kLimit - 2);
}

} // namespace

int main() {
  divides_like_the_operator();
  finds_voxels_of_a_cropped_volume();
  counts_beyond_two_to_the_31();
  one_long_row_needs_no_division();
  return check::failures() == 0 ? 0 : 1;
}
