#include "cuda/ensemble.h"

#include <algorithm>
#include <cstring>

#include <cuda_runtime.h>

#include "core/walk.h"
#include "cuda/launch.h"

namespace fastcal::cuda {

namespace {

constexpr int kFirstCapability = 75;
constexpr std::int64_t kWorkspaceBlocksAProcessor = 8;

std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Makes the tensors' device current, and the caller's again at the end.
class DeviceGuard {
public:
  Error enter(int device) {
    FASTCAL_CUDA_TRY(cudaGetDevice(&before_));
    if (before_ != device) {
      FASTCAL_CUDA_TRY(cudaSetDevice(device));
      changed_ = true;
    }
    return {};
  }
  ~DeviceGuard() {
    if (changed_) {
      static_cast<void>(cudaSetDevice(before_));
    }
  }

private:
  int before_ = 0;
  bool changed_ = false;
};

Error shared_limit(int device, std::int64_t *bytes) {
  int limit = 0;
  FASTCAL_CUDA_TRY(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  *bytes = limit;
  return {};
}

int processors(int device) {
  int count = 0;
  return cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess
             ? count
             : 1;
}

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
    c.checks_sum = a.checks_range && !a.reading.multilabel && !a.normalise &&
                   a.reading.activation == Activation::kSoftmax;
    a.groups = counting.groups;
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
    for (View *view : {&a.member, &a.state, &a.counting.target, &a.counting.mask}) {
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
    a.group_voxels = walk.voxels / std::max<std::int64_t>(a.groups, 1);
  }

  // Cuts a piece off the workspace and writes words to it.
  Error place_words(const std::uint64_t *words, std::int64_t count, void **at) {
    const std::int64_t bytes = round_up(count * 8, 16);
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
    static_assert(sizeof(MemberEntry) == 24);
    void *table = nullptr;
    if (a.n_members <= kInlineMembers) {
      std::copy(entries_.begin(), entries_.end(), a.members);
    } else {
      std::vector<std::uint64_t> words(count * 3);
      std::memcpy(words.data(), entries_.data(), count * sizeof(MemberEntry));
      if (const Error error = place_words(words.data(), a.n_members * 3, &table)) {
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
    std::memcpy(words.data(), thresholds, static_cast<std::size_t>(n_thresholds) * 8);
    const Error error = place_words(words.data(), n_thresholds, &table);
    a.threshold_table = static_cast<const double *>(table);
    return error;
  }

  Error launch() const {
    const MemberPointers pointers{entries_.data(), a.n_members};
    switch (a.n_members > 0 ? a.member.dtype : a.state.dtype) {
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

Error plan_shared(PassArguments &a, std::int64_t real_bytes, const Place &place, int &warps) {
  std::int64_t limit = 0;
  if (const Error error = shared_limit(place.device, &limit)) {
    return error;
  }
  SharedPlan &shared = a.shared;
  const auto plan = [&](bool bins) {
    std::int64_t at = 0;
    const auto take = [&at](std::int64_t bytes) {
      const std::int64_t begin = at;
      at = round_up(at + bytes, 16);
      return static_cast<std::int32_t>(begin);
    };
    if (a.counting.wanted) {
      shared.thresholds = take((a.counting.n_cells - 1) * real_bytes);
      shared.scores = take(kScoreWords * 4);
      shared.classes = take(3 * std::int64_t{a.classes} * 4);
      const std::int64_t bin_bytes = (a.counting.words - a.counting.top_label_bins) * 4;
      a.bins_in_shared = bins && bin_bytes <= kSharedBinBytes;
      shared.bins = take(a.bins_in_shared ? bin_bytes : 0);
      shared.cleared_words = static_cast<std::int32_t>((at - shared.scores) / 4);
    }
    shared.tiles = static_cast<std::int32_t>(at);
  };
  plan(true);
  for (warps = kMaxWarps; warps > 1 && shared.tiles + warps * a.tile_bytes > limit; warps /= 2) {
  }
  if (shared.tiles + a.tile_bytes <= limit) {
    shared.bytes = static_cast<std::int32_t>(shared.tiles + warps * a.tile_bytes);
    return {};
  }
  plan(false);
  expects(shared.tiles <= limit, "too many classes or bins for the shared memory of this device");
  expects(place.workspace_bytes >= a.tile_bytes, "the workspace is too small");
  shared.bytes = shared.tiles;
  a.tile_workspace = static_cast<unsigned char *>(place.workspace);
  return {};
}

std::int64_t looping_blocks(const PassArguments &a, const Place &place, std::int64_t blocks,
                            int resident, int warps, int width) {
  const std::int64_t rows = std::min(a.groups, kMaxGridRows);
  std::int64_t most = std::int64_t{resident} * processors(place.device);
  if (a.tile_workspace != nullptr) {
    const std::int64_t tiles = place.workspace_bytes / a.tile_bytes;
    return std::clamp<std::int64_t>(std::min(most, tiles / warps) / rows, 1, blocks);
  }
  const std::int64_t values_a_tile = width * (a.reading.multilabel ? std::int64_t{a.classes} : 1);
  const std::int64_t tiles_a_block = std::max<std::int64_t>(kValuesABlock / values_a_tile, 1);
  const std::int64_t least = (a.tiles + tiles_a_block - 1) / tiles_a_block;
  most = (most + rows - 1) / rows;
  return std::min(std::max(most, least), blocks);
}

Error workspace_bytes(int device, const Size &size, std::int64_t *bytes) {
  *bytes = size.n_members > kInlineMembers ? round_up(size.n_members * 24, 16) : 0;
  *bytes += size.n_cells - 1 > kInlineThresholds ? round_up((size.n_cells - 1) * 8, 16) : 0;
  const std::int64_t real = size.dtype == Dtype::kFloat64 ? 8 : 4;
  const std::int64_t tile = round_up(((2 * size.classes + 2) * real + 4) * kWarpLanes, 16);
  const std::int64_t counts = 3 * size.classes * 4 + size.n_cells * real + kSharedBinBytes + 256;
  std::int64_t limit = 0;
  if (const Error error = shared_limit(device, &limit)) {
    return error;
  }
  if (tile + counts > limit) {
    *bytes += processors(device) * kWorkspaceBlocksAProcessor * kMaxWarps * tile;
  }
  return {};
}

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

std::string unavailable() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    return cudaGetErrorString(status);
  }
  for (int device = 0; device < count; ++device) {
    int major = 0;
    int minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
        10 * major + minor >= kFirstCapability) {
      return "";
    }
  }
  return "no GPU of compute capability 7.5 or newer";
}

} // namespace fastcal::cuda
