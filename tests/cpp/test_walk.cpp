// The walk over voxels, with extents and strides of volumes that are larger than any memory.
#include <cstdint>
#include <vector>

#include "check.h"
#include "core/walk.h"

using namespace fastcal;

namespace {

View view_of(const std::vector<std::int64_t> &strides) {
  View view;
  for (std::size_t axis = 0; axis < strides.size(); ++axis) {
    view.strides[axis] = strides[axis];
  }
  return view;
}

void contiguous_axes_become_one_row() {
  View member = view_of({4 * 1000, 100, 10, 1});
  View target = view_of({1000, 100, 10, 1});
  const Walk walk = plan_walk({1, 10, 10, 10}, {&member, &target}, 0);
  CHECK(walk.axes == 1);
  CHECK(walk.row() == 1000);
  CHECK(walk.voxels == 1000);
}

void a_crop_keeps_the_axis_it_cut() {
  View member = view_of({100, 10, 1});
  const Walk walk = plan_walk({10, 10, 7}, {&member}, 0);
  CHECK(walk.axes == 2);
  CHECK(walk.extents[0] == 100);
  CHECK(walk.row() == 7);
}

void a_transposed_view_is_walked_as_it_lies_in_memory() {
  View member = view_of({1, 10, 100}); // (X, Y, Z) view of (Z, Y, X) memory
  View map = view_of({100, 10, 1});
  const Walk walk = plan_walk({10, 10, 10}, {&member, &map}, 0);
  CHECK(member.strides[walk.axes - 1] == 1);
  CHECK(map.strides[walk.axes - 1] == 100);
}

void a_pinned_axis_stays_outermost_and_alone() {
  View member = view_of({1, 2}); // the pinned axis has the smaller stride
  const Walk walk = plan_walk({2, 1000}, {&member}, 1);
  CHECK(walk.axes == 2);
  CHECK(walk.extents[0] == 2);
  CHECK(member.strides[0] == 1);
}

void axes_of_one_voxel_vanish() {
  View member = view_of({7, 7, 7});
  const Walk walk = plan_walk({1, 1, 1}, {&member}, 0);
  CHECK(walk.axes == 0);
  CHECK(walk.voxels == 1);
  CHECK(walk.row() == 1);
}

void an_empty_axis_leaves_no_voxels() {
  View member = view_of({10, 1});
  CHECK(plan_walk({0, 10}, {&member}, 0).voxels == 0);
}

void offsets_pass_two_to_the_thirty_one() {
  const std::int64_t side = 3000;
  const std::int64_t volume = side * side * side; // 2.7e10 voxels
  View member = view_of({5 * volume, side * side, side, 1});
  View crop = view_of({7 * volume, 2 * side * side, side, 1});
  const Walk walk = plan_walk({4, side, side, side - 1}, {&member, &crop}, 0);
  CHECK(walk.voxels == 4 * side * side * (side - 1));
  const std::int64_t last = walk.voxels - 1;
  const Coordinates where = coordinates_of(walk, last);
  const std::int64_t z = side - 1;
  CHECK(offset_of(walk, member, where) == 3 * 5 * volume + z * side * side + z * side + side - 2);
  CHECK(offset_of(walk, crop, where) == 3 * 7 * volume + z * 2 * side * side + z * side + side - 2);
}

void every_voxel_is_visited_once() {
  View member = view_of({1, 24, 4});
  const Walk walk = plan_walk({4, 5, 6}, {&member}, 0);
  std::vector<int> seen(static_cast<std::size_t>(24 * 5), 0);
  for (std::int64_t voxel = 0; voxel < walk.voxels; ++voxel) {
    ++seen.at(static_cast<std::size_t>(offset_of(walk, member, coordinates_of(walk, voxel))));
  }
  for (const int times : seen) {
    CHECK(times == 1);
  }
}

} // namespace

int main() {
  contiguous_axes_become_one_row();
  a_crop_keeps_the_axis_it_cut();
  a_transposed_view_is_walked_as_it_lies_in_memory();
  a_pinned_axis_stays_outermost_and_alone();
  axes_of_one_voxel_vanish();
  an_empty_axis_leaves_no_voxels();
  offsets_pass_two_to_the_thirty_one();
  every_voxel_is_visited_once();
  return check::failures();
}
