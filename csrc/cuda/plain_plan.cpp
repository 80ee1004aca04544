// How the threads of a plain pass reach the members, the maps and the state.
#include <algorithm>
#include <atomic>

#include "cuda/device.h"
#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

std::atomic<Delivery> chosen_delivery{kDelivery};

constexpr int kFirstWithCopies = 80; // compute capability 8.0

// Whether the voxels of a view may be touched so many at a time, `bytes` of each of which lie in
// one access or several of 16.
bool takes_neighbours(const PassArguments &a, const View &view, int element_bytes, int voxels) {
  const Grid &grid = a.grid;
  if (voxels == 1 || grid.axes == 0) {
    return false;
  }
  const int last = grid.axes - 1;
  const std::int64_t access = std::min(16, voxels * element_bytes);
  const std::int64_t aligned = access / element_bytes; // elements
  bool fits = view.strides[last] == 1 && grid.extents[last] % voxels == 0 &&
              a.group_voxels % voxels == 0 && view.class_stride % aligned == 0;
  for (int axis = 0; axis < last; ++axis) {
    fits = fits && view.strides[axis] % aligned == 0;
  }
  return fits &&
         reinterpret_cast<std::uintptr_t>(view.data) % static_cast<std::uintptr_t>(access) == 0;
}

// Whether the voxels lie in their order, one after the other.
bool lies_in_order(const Grid &grid, const View &view) {
  std::int64_t stride = 1;
  for (int axis = grid.axes - 1; axis >= 0; --axis) {
    if (view.strides[axis] != stride) {
      return false;
    }
    stride *= grid.extents[axis];
  }
  return true;
}

bool lies_like(const Grid &grid, const View &view, const View &other) {
  return std::equal(view.strides, view.strides + grid.axes, other.strides);
}

} // namespace

Delivery delivery() { return chosen_delivery.load(std::memory_order_relaxed); }

void set_delivery(Delivery chosen) { chosen_delivery.store(chosen, std::memory_order_relaxed); }

bool reads_vectors(const PassArguments &a, int element_bytes, int voxels,
                   const MemberPointers &members) {
  View view = a.member;
  bool fits = members.count > 0;
  for (std::int64_t m = 0; fits && m < members.count; ++m) {
    view.data = const_cast<void *>(members.entries[m].data);
    fits = takes_neighbours(a, view, element_bytes, voxels);
  }
  return fits;
}

Error plan_plain_access(PassArguments &a, int element_bytes, int voxels,
                        const MemberPointers &members, int device) {
  int capability = 0;
  if (const Error error = compute_capability(device, &capability)) {
    return error;
  }
  const Delivery how = delivery();
  a.copies_ahead = how != Delivery::kLoads && capability >= kFirstWithCopies;
  a.persistent = how == Delivery::kPersistent && a.copies_ahead;
  a.vector = reads_vectors(a, element_bytes, voxels, members);
  const std::int64_t stride = a.grid.axes == 0 ? 1 : a.member.strides[a.grid.axes - 1];
  a.interleaved = a.member.class_stride == 1 && stride == a.classes;
  a.runs = a.interleaved || stride == 1;
  a.wide_maps = 0;
  for (int map = 0; a.vector && map < kMapCount; ++map) {
    const View &view = a.maps.views[map];
    const bool in_order = lies_in_order(a.grid, view);
    if (view.data != nullptr && (in_order || lies_like(a.grid, view, a.member)) &&
        takes_neighbours(a, view, static_cast<int>(size_of(view.dtype)), voxels)) {
      a.wide_maps |= std::uint32_t{1} << map;
      a.maps_like_member |= in_order ? 0 : std::uint32_t{1} << map;
    }
  }
  a.wide_state = a.vector && a.state.data != nullptr && lies_in_order(a.grid, a.state) &&
                 takes_neighbours(a, a.state, 4, voxels);
  return {};
}

void plan_plain_tile(PassArguments &a, int width, std::int64_t ring) {
  std::int64_t at = 0;
  const auto take = [&at](bool wanted, std::int64_t bytes) {
    const std::int64_t begin = at;
    at = wanted ? round_up(at + bytes, 16) : at;
    return static_cast<std::int32_t>(begin);
  };
  PlainPlan &plan = a.plain;
  const std::int64_t plane = std::int64_t{width} * 4;
  const bool copied_always = a.vector || (a.grid.axes <= 1 && a.copies_ahead && a.runs);
  plan.ring = take(a.copies_ahead, ring);
  plan.offsets = take(!copied_always, 2 * plane);
  for (int map = 0; map < kMapCount; ++map) {
    const bool staged = a.maps.views[map].data != nullptr && (a.wide_maps >> map & 1U) == 0;
    const std::int64_t planes = map == static_cast<int>(Map::kMean) ? a.classes : 1;
    plan.staged[map] = take(staged, planes * plane);
    plan.any_staged = plan.any_staged || staged;
  }
  const std::int64_t planes = std::int64_t{a.classes} * (a.keeps_votes ? 2 : 1) +
                              (a.keeps_entropy ? 1 : 0) + (a.keeps_square ? 1 : 0);
  plan.state = take(a.state.data != nullptr && !a.wide_state, planes * plane);
  plan.sum = take(a.counting.wanted, a.classes * plane);
  plan.target = take(a.counting.wanted, plane);
  plan.regions = take(a.counting.rows > 1, width);
  plan.votes = take(a.keeps_votes && a.n_members > kPackedVotes, a.classes * plane);
  a.tile_bytes = at;
}

} // namespace fastcal::cuda
