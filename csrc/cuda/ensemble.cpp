#include "cuda/ensemble.h"

#include <algorithm>
#include <cstring>

#include "core/walk.h"
#include "cuda/device.h"
#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

// One pass: its arguments, its tables in the workspace, its launch.
class Pass {
public:
  Pass(const Reading &reading, std::int64_t classes, const Place &place) : place_(place) {
    a.reading = reading;
    a.classes = static_cast<std::int32_t>(classes);
    while (classes > (std::int64_t{kLastTier} << a.split_shift) && a.split_shift <= 4) {
      ++a.split_shift;
    }
    if ((1 << a.split_shift) > kMaxSplit) {
      a.split_shift = 0; // class by class
    }
  }

  PassArguments a;
  Members members;
  const double *thresholds = nullptr;

  void keep(const StateLayout &layout) {
    a.keeps_entropy = layout.entropy;
    a.keeps_square = layout.square;
    a.keeps_votes = layout.votes;
    a.entropy_plane = layout.entropy_plane();
    a.square_plane = layout.square_plane();
    a.votes_plane = layout.votes_plane();
  }

  void finish(const Finish &finish, std::int64_t n_members, double total_weight) {
    a.finishes = true;
    a.maps = finish.maps;
    a.normalise = finish.normalise;
    a.checks_range = !a.reading.from_logits && !a.reading.logit_space;
    a.scale = 1.0 / total_weight;
    a.inverse_members = 1.0 / static_cast<double>(n_members);
    const Counting &counting = finish.counting;
    if (!counting.wanted) {
      return;
    }
    CountingArguments &c = a.counting;
    c.wanted = true;
    c.has_ignore_index = counting.has_ignore_index;
    c.ignore_index = counting.ignore_index;
    c.left_closed = counting.left_closed;
    c.eps = counting.eps;
    c.target = counting.target;
    c.mask = counting.mask;
    c.statistics = counting.statistics;
    c.n_cells = static_cast<std::int32_t>(counting.layout.n_cells);
    c.top_label = counting.layout.top_label;
    c.classwise = counting.layout.classwise;
    c.words = counting.layout.words();
    c.predicted = counting.layout.predicted();
    c.top_label_bins = counting.layout.top_label_bins();
    c.classwise_bins = counting.layout.classwise_bins();
    c.regions = counting.regions;
    c.rows = static_cast<std::int32_t>(counting.rows());
    c.moment_bins = counting.layout.moment_bins();
    c.fine_top_label = counting.layout.fine_top_label();
    c.fine_classwise = counting.layout.fine_classwise();
    c.entropy_cells = counting.layout.entropy_cells();
    c.moments = counting.layout.has_moments();
    c.fine_bins = static_cast<std::int32_t>(counting.layout.fine_bins);
    c.fine_shift = counting.layout.fine_bins > 0 ? counting.layout.fine_shift() : 0;
    c.entropy_bins = static_cast<std::int32_t>(counting.layout.entropy_bins);
    c.entropy_scale = counting.entropy_scale;
    c.checks_sum = a.checks_range && !a.reading.multilabel && !a.normalise &&
                   a.reading.activation == Activation::kSoftmax;
    expects(counting.groups < kMaxIndex, "too many rows of statistics: at most 2^31");
    a.groups = static_cast<std::uint32_t>(counting.groups);
  }

  Error run(const std::vector<std::int64_t> &shape) {
    plan(shape);
    if (a.group_voxels == 0 || a.groups == 0) {
      return {};
    }
    DeviceGuard guard;
    if (const Error error = guard.enter(place_.device)) {
      return error;
    }
    if (const Error error = write_tables()) {
      return error;
    }
    if (const Error error = launch()) {
      return error;
    }
    if (a.counting.wanted) {
      return carry_sums(a.counting, a.groups, place_);
    }
    return {};
  }

private:
  void plan(const std::vector<std::int64_t> &shape) {
    a.member = members.view;
    std::vector<View *> operands;
    for (View *view :
         {&a.member, &a.state, &a.counting.target, &a.counting.mask, &a.counting.regions}) {
      if (view->data != nullptr) {
        operands.push_back(view);
      }
    }
    for (View &map : a.maps.views) {
      if (map.data != nullptr) {
        operands.push_back(&map);
      }
    }
    const Walk walk = plan_walk(shape, operands, a.groups > 1 ? 1 : 0);
    a.grid.axes = walk.axes;
    a.grid.narrow = walk.voxels < (std::int64_t{1} << 31);
    for (int axis = 0; axis < walk.axes; ++axis) {
      a.grid.extents[axis] = walk.extents[axis];
      a.grid.dividers[axis] = Divider(walk.extents[axis]);
    }
    a.group_voxels = walk.voxels / std::max<std::int64_t>(std::int64_t{a.groups}, 1);
  }

  // Cuts a piece off the workspace and writes words to it.
  Error place_words(const std::uint64_t *words, std::int64_t count, void **at) {
    const std::int64_t bytes = table_bytes(count);
    expects(place_.workspace_bytes >= bytes, "the workspace is too small");
    *at = place_.workspace;
    place_.workspace = static_cast<char *>(place_.workspace) + bytes;
    place_.workspace_bytes -= bytes;
    return write_words(static_cast<std::uint64_t *>(*at), words, count, place_);
  }

  Error write_tables() {
    const std::size_t count = members.addresses.size();
    a.n_members = static_cast<std::int32_t>(count);
    entries_.resize(count);
    for (std::size_t m = 0; m < count; ++m) {
      entries_[m] = {members.addresses[m], members.weights[m], 1.0 / members.temperatures[m]};
    }
    static_assert(sizeof(MemberEntry) == 8 * kMemberWords);
    void *table = nullptr;
    if (a.n_members <= kInlineMembers) {
      std::copy(entries_.begin(), entries_.end(), a.members);
    } else {
      std::vector<std::uint64_t> words(count * kMemberWords);
      std::memcpy(words.data(), entries_.data(), count * sizeof(MemberEntry));
      if (const Error error = place_words(words.data(), a.n_members * kMemberWords, &table)) {
        return error;
      }
      a.member_table = static_cast<const MemberEntry *>(table);
    }
    const std::int64_t n_thresholds = a.counting.wanted ? a.counting.n_cells - 1 : 0;
    if (n_thresholds <= kInlineThresholds) {
      std::copy_n(thresholds, n_thresholds, a.thresholds);
      return {};
    }
    std::vector<std::uint64_t> words(static_cast<std::size_t>(n_thresholds));
    if (dtype() == Dtype::kFloat64) {
      std::memcpy(words.data(), thresholds, static_cast<std::size_t>(n_thresholds) * 8);
    } else {
      const std::vector<float> singles(thresholds, thresholds + n_thresholds);
      std::memcpy(words.data(), singles.data(), static_cast<std::size_t>(n_thresholds) * 4);
    }
    const Error error = place_words(words.data(), n_thresholds, &table);
    a.threshold_table = table;
    return error;
  }

  Dtype dtype() const { return a.n_members > 0 ? a.member.dtype : a.state.dtype; }

  Error launch() const {
    const MemberPointers pointers{entries_.data(), a.n_members};
    switch (dtype()) {
    case Dtype::kFloat64:
      return launch_f64(a, pointers, place_);
    case Dtype::kFloat16:
      return launch_f16(a, pointers, place_);
    case Dtype::kBFloat16:
      return launch_bf16(a, pointers, place_);
    default:
      return launch_f32(a, pointers, place_);
    }
  }

  Place place_;
  std::vector<MemberEntry> entries_;
};

StateLayout state_for(const Finish &finish, std::int64_t classes) {
  StateLayout layout;
  layout.num_classes = classes;
  layout.entropy =
      finish.maps.wants(Map::kExpectedEntropy) || finish.maps.wants(Map::kMutualInformation);
  layout.square = finish.maps.wants(Map::kVariance);
  layout.votes = finish.maps.wants(Map::kDisagreement);
  return layout;
}

} // namespace

Error ensemble_statistics(const std::vector<std::int64_t> &shape, std::int64_t classes,
                          const Members &members, const Reading &reading, const Finish &finish,
                          const double *thresholds, const Place &place) {
  expects(!members.addresses.empty(), "no members");
  Pass pass(reading, classes, place);
  pass.members = members;
  pass.thresholds = thresholds;
  pass.keep(state_for(finish, classes));
  double total_weight = 0.0;
  for (const double weight : members.weights) {
    total_weight += weight;
  }
  pass.finish(finish, static_cast<std::int64_t>(members.addresses.size()), total_weight);
  return pass.run(shape);
}

Error ensemble_accumulate(const std::vector<std::int64_t> &shape, const Members &member,
                          const Reading &reading, const StateLayout &layout, const View &state,
                          const Place &place) {
  Pass pass(reading, layout.num_classes, place);
  pass.members = member;
  pass.keep(layout);
  pass.a.state = state;
  pass.a.loads_state = true;
  pass.a.stores_state = true;
  return pass.run(shape);
}

Error ensemble_finalize(const std::vector<std::int64_t> &shape, const View &state,
                        const StateLayout &layout, std::int64_t n_members, double total_weight,
                        const Reading &reading, const Finish &finish, const double *thresholds,
                        const Place &place) {
  Pass pass(reading, layout.num_classes, place);
  pass.thresholds = thresholds;
  pass.keep(layout);
  pass.a.state = state;
  pass.a.loads_state = true;
  pass.a.accepts_squares = true;
  pass.finish(finish, n_members, total_weight);
  return pass.run(shape);
}

} // namespace fastcal::cuda
