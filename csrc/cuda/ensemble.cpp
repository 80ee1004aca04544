#include "cuda/ensemble.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/walk.h"
#include "cuda/device.h"
#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

// Whether each edge is less than a quarter of a bin from where equal bins have it.
bool are_even(const double *thresholds, std::int64_t n_cells) {
  constexpr std::int64_t kMost = 1 << 16; // a float tells their quarters apart
  bool even = n_cells <= kMost;
  for (std::int64_t i = 0; even && i < n_cells - 1; ++i) {
    even =
        std::abs(thresholds[i] * static_cast<double>(n_cells) - static_cast<double>(i + 1)) < 0.25;
  }
  return even;
}

// One pass: its arguments, its tables in the workspace, its launch.
class Pass {
public:
  Pass(const Reading &reading, std::int64_t classes, const Place &place) : place_(place) {
    a_.reading = reading;
    a_.classes = static_cast<std::int32_t>(classes);
    while (classes > (std::int64_t{kLastTier} << a_.split_shift) && a_.split_shift <= 4) {
      ++a_.split_shift;
    }
    if ((1 << a_.split_shift) > kMaxSplit) {
      a_.split_shift = 0; // class by class
    }
  }

  // Adds up these members.
  void read(const Members &members) { members_ = members; }

  // The running sums to keep.
  void keep(const StateLayout &layout) {
    a_.keeps_entropy = layout.entropy;
    a_.keeps_square = layout.square;
    a_.keeps_votes = layout.votes;
    a_.entropy_plane = layout.entropy_plane();
    a_.square_plane = layout.square_plane();
    a_.votes_plane = layout.votes_plane();
  }

  // Begins with the sums of a streamed state.
  void load(const View &state) {
    a_.state = state;
    a_.loads_state = true;
  }

  // Writes the sums back to the state.
  void store() { a_.stores_state = true; }

  // Writes maps and adds to statistics. `thresholds` are on the host.
  void finish(const Finish &finish, const MemberTotals &totals, const double *thresholds) {
    a_.finishes = true;
    a_.accepts_squares = a_.loads_state;
    a_.maps = finish.maps;
    a_.normalise = finish.normalise;
    a_.checks_range = !a_.reading.from_logits && !a_.reading.logit_space;
    a_.scale = 1.0 / totals.weight;
    a_.inverse_members = 1.0 / static_cast<double>(totals.count);
    if (finish.counting.wanted) {
      count(finish.counting);
      thresholds_ = thresholds;
      a_.counting.even_bins = are_even(thresholds, finish.counting.layout.n_cells);
    }
  }

  Error run(const std::vector<std::int64_t> &shape) {
    plan(shape);
    if (a_.group_voxels == 0 || a_.groups == 0) {
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
    if (a_.counting.wanted) {
      return carry_sums(a_.counting, a_.groups, place_);
    }
    return {};
  }

private:
  void count(const Counting &counting) {
    CountingArguments &c = a_.counting;
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
    c.checks_sum = a_.checks_range && !a_.reading.multilabel && !a_.normalise &&
                   a_.reading.activation == Activation::kSoftmax;
    expects(counting.groups < kMaxIndex, "groups of statistics must be fewer than 2^31");
    a_.groups = static_cast<std::uint32_t>(counting.groups);
  }

  void plan(const std::vector<std::int64_t> &shape) {
    a_.member = members_.view;
    std::vector<View *> operands;
    for (View *view :
         {&a_.member, &a_.state, &a_.counting.target, &a_.counting.mask, &a_.counting.regions}) {
      if (view->data != nullptr) {
        operands.push_back(view);
      }
    }
    for (View &map : a_.maps.views) {
      if (map.data != nullptr) {
        operands.push_back(&map);
      }
    }
    const Walk walk = plan_walk(shape, operands, a_.groups > 1 ? 1 : 0);
    a_.grid.axes = walk.axes;
    a_.grid.narrow = walk.voxels < (std::int64_t{1} << 31);
    for (int axis = 0; axis < walk.axes; ++axis) {
      a_.grid.extents[axis] = walk.extents[axis];
      a_.grid.dividers[axis] = Divider(walk.extents[axis]);
    }
    a_.group_voxels = walk.voxels / std::max<std::int64_t>(std::int64_t{a_.groups}, 1);
  }

  // Cuts a piece off the workspace and writes the words to it.
  Error place_words(const std::vector<std::uint64_t> &words, void **at) {
    const auto count = static_cast<std::int64_t>(words.size());
    const std::int64_t bytes = table_bytes(count);
    expects(place_.workspace_bytes >= bytes, "workspace must hold what workspace_bytes() gives");
    *at = place_.workspace;
    place_.workspace = static_cast<char *>(place_.workspace) + bytes;
    place_.workspace_bytes -= bytes;
    return write_words(static_cast<std::uint64_t *>(*at), words.data(), count, place_);
  }

  Error write_tables() {
    if (const Error error = write_members()) {
      return error;
    }
    return a_.counting.wanted ? write_thresholds() : Error{};
  }

  Error write_members() {
    const std::size_t count = members_.addresses.size();
    a_.n_members = static_cast<std::int32_t>(count);
    entries_.resize(count);
    for (std::size_t m = 0; m < count; ++m) {
      const double weight = members_.weights[m];
      const double inverse_temperature = 1.0 / members_.temperatures[m];
      entries_[m] = {members_.addresses[m], weight, inverse_temperature, static_cast<float>(weight),
                     static_cast<float>(inverse_temperature)};
    }
    if (a_.n_members <= kInlineMembers) {
      std::copy(entries_.begin(), entries_.end(), a_.members);
      return {};
    }
    static_assert(sizeof(MemberEntry) == 8 * kMemberWords);
    std::vector<std::uint64_t> words(count * kMemberWords);
    std::memcpy(words.data(), entries_.data(), count * sizeof(MemberEntry));
    void *table = nullptr;
    const Error error = place_words(words, &table);
    a_.member_table = static_cast<const MemberEntry *>(table);
    return error;
  }

  Error write_thresholds() {
    const std::int64_t count = a_.counting.n_cells - 1;
    if (count <= kInlineThresholds) {
      std::copy_n(thresholds_, count, a_.thresholds);
      return {};
    }
    std::vector<std::uint64_t> words(static_cast<std::size_t>(count));
    if (dtype() == Dtype::kFloat64) {
      std::memcpy(words.data(), thresholds_, static_cast<std::size_t>(count) * 8);
    } else {
      const std::vector<float> singles(thresholds_, thresholds_ + count);
      std::memcpy(words.data(), singles.data(), static_cast<std::size_t>(count) * 4);
    }
    void *table = nullptr;
    const Error error = place_words(words, &table);
    a_.threshold_table = table;
    return error;
  }

  Dtype dtype() const { return a_.n_members > 0 ? a_.member.dtype : a_.state.dtype; }

  Error launch() const {
    const MemberPointers pointers{entries_.data(), a_.n_members};
    const bool plain = is_plain(a_);
    switch (dtype()) {
    case Dtype::kFloat64:
      return launch_f64(a_, pointers, place_);
    case Dtype::kFloat16:
      return (plain ? launch_plain_f16 : launch_f16)(a_, pointers, place_);
    case Dtype::kBFloat16:
      return (plain ? launch_plain_bf16 : launch_bf16)(a_, pointers, place_);
    default:
      return (plain ? launch_plain_f32 : launch_f32)(a_, pointers, place_);
    }
  }

  PassArguments a_;
  Place place_;
  Members members_;
  std::vector<MemberEntry> entries_;
  const double *thresholds_ = nullptr;
};

} // namespace

Error ensemble_statistics(const std::vector<std::int64_t> &shape, std::int64_t classes,
                          const Members &members, const Reading &reading, const Finish &finish,
                          const double *thresholds, const Place &place) {
  expects(!members.addresses.empty(), "members must hold at least one tensor");
  MemberTotals totals{static_cast<std::int64_t>(members.addresses.size()), 0.0};
  for (const double weight : members.weights) {
    totals.weight += weight;
  }
  Pass pass(reading, classes, place);
  pass.read(members);
  pass.keep(state_layout_for(finish.maps, classes));
  pass.finish(finish, totals, thresholds);
  return pass.run(shape);
}

Error ensemble_accumulate(const std::vector<std::int64_t> &shape, const Members &member,
                          const Reading &reading, const StateLayout &layout, const View &state,
                          const Place &place) {
  Pass pass(reading, layout.num_classes, place);
  pass.read(member);
  pass.keep(layout);
  pass.load(state);
  pass.store();
  return pass.run(shape);
}

Error ensemble_finalize(const std::vector<std::int64_t> &shape, const View &state,
                        const StateLayout &layout, const MemberTotals &totals,
                        const Reading &reading, const Finish &finish, const double *thresholds,
                        const Place &place) {
  Pass pass(reading, layout.num_classes, place);
  pass.keep(layout);
  pass.load(state);
  pass.finish(finish, totals, thresholds);
  return pass.run(shape);
}

} // namespace fastcal::cuda
