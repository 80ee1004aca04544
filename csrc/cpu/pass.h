// A pass over blocks of voxels: what one-shot, streaming update and finalize have in common.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <type_traits>
#include <vector>

#include "cpu/ensemble.h"
#include "cpu/isa.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace fastcal::cpu {

template <typename Real> constexpr Dtype real_dtype() {
  return std::is_same_v<Real, float> ? Dtype::kFloat32 : Dtype::kFloat64;
}

template <typename Real> const MapsKernels<Real> &maps_kernels(const Isa &isa) {
  if constexpr (std::is_same_v<Real, float>) {
    return isa.maps->f32;
  } else {
    return isa.maps->f64;
  }
}

template <typename Real> void count(const Isa &isa, const CountBlock<Real> &block) {
  if constexpr (std::is_same_v<Real, float>) {
    isa.counts->count_f32(block);
  } else {
    isa.counts->count_f64(block);
  }
}

inline void carry(std::int64_t *hi_lo) {
  hi_lo[0] += hi_lo[1] >> kFractionBits;
  hi_lo[1] &= kFractionMask;
}

// Bin sums leave the kernels in lo alone: carries them over.
inline void carry_bins(const StatisticsLayout &layout, std::int64_t *row) {
  for (std::int64_t cell = layout.top_label_bins(); cell < layout.moment_bins();
       cell += kBinWords) {
    carry(row + cell + 2);
  }
  for (std::int64_t sum = layout.moment_bins(); sum < layout.fine_top_label(); sum += 2) {
    carry(row + sum);
  }
}

inline void add_row(const StatisticsLayout &layout, const std::int64_t *from, std::int64_t *to) {
  for (std::int64_t w = 0; w < layout.words(); ++w) {
    to[w] += from[w];
  }
  for (const int hi : {word::kBrier, word::kNll}) {
    carry(to + hi);
  }
  carry_bins(layout, to);
}

template <typename Real> class Pass {
public:
  Pass(const Reading &reading, std::int64_t classes)
      : isa_(current_isa()), kernels_(maps_kernels<Real>(isa_)), reading_(reading),
        classes_(classes), block_voxels_(block_voxels_for(classes)) {}

  Members members;
  View state; // data is null in a one-shot pass
  StateLayout state_layout;
  bool finishes = true;
  std::int64_t n_members = 0;
  double total_weight = 1.0;
  Finish finish;

  void run(const std::vector<std::int64_t> &shape, int n_threads) {
    plan(shape);
    if (walk_.voxels == 0) {
      return;
    }
    const std::int64_t blocks_a_group = (group_voxels_ + block_voxels_ - 1) / block_voxels_;
    const std::int64_t wanted_chunks = std::int64_t{8} * n_threads;
    const std::int64_t blocks = blocks_a_group * groups_;
    const std::int64_t chunk = std::clamp(blocks / wanted_chunks, std::int64_t{1}, kChunkBlocks);
    const std::int64_t chunks_a_group = (blocks_a_group + chunk - 1) / chunk;
    const std::int64_t chunks = chunks_a_group * groups_;
    const std::int64_t workers = std::min<std::int64_t>(n_threads, chunks);
    std::atomic<std::int64_t> next{0};
    parallel_for(workers, static_cast<int>(workers), [&](std::int64_t) {
      Worker worker(*this);
      for (std::int64_t c = next.fetch_add(1); c < chunks; c = next.fetch_add(1)) {
        const std::int64_t group = c / chunks_a_group;
        const std::int64_t first = c % chunks_a_group * chunk * block_voxels_;
        const std::int64_t end = std::min(group_voxels_, first + chunk * block_voxels_);
        worker.chunk(group, group * group_voxels_ + first, group * group_voxels_ + end);
      }
      worker.flush();
    });
  }

private:
  static constexpr std::int64_t kChunkBlocks = 64;
  static constexpr std::int64_t kCachedBytes = 8 << 20;

  struct Planes {
    Real *data;
    std::int64_t pitch;
  };

  // One thread's share: scratch memory, and private rows of statistics.
  class Worker {
  public:
    explicit Worker(Pass &pass)
        : pass_(pass), scratch_(pass.needs()), layout_(pass.finish.counting.layout),
          rows_(counting() ? pass.finish.counting.rows() : 0) {
      clear_rows();
    }

    void chunk(std::int64_t group, std::int64_t first, std::int64_t end) {
      if (group != group_) {
        flush();
        group_ = group;
      }
      for (std::int64_t voxel = first; voxel < end; voxel += pass_.block_voxels_) {
        block_.place(pass_.walk_, voxel, std::min(pass_.block_voxels_, end - voxel));
        pass_.work(block_, scratch_);
      }
      for (std::int64_t r = 0; r < rows_; ++r) {
        carry_bins(layout_, row(r));
      }
    }

    void flush() {
      if (pass_.past_caches_) {
        pass_.isa_.maps->fence();
      }
      const std::lock_guard<std::mutex> lock(pass_.statistics_mutex_);
      for (std::int64_t r = 0; r < rows_; ++r) {
        add_row(layout_, row(r),
                pass_.finish.counting.statistics + (group_ * rows_ + r) * layout_.words());
      }
      clear_rows();
    }

  private:
    bool counting() const { return pass_.finishes && pass_.finish.counting.wanted; }
    std::int64_t *row(std::int64_t r) { return scratch_.rows + r * layout_.words(); }
    void clear_rows() { std::fill_n(scratch_.rows, rows_ * layout_.words(), 0); }

    Pass &pass_;
    Scratch<Real> scratch_;
    const StatisticsLayout layout_;
    const std::int64_t rows_; // 0 where nothing is counted
    Block block_;
    std::int64_t group_ = 0;
  };

  ScratchNeeds needs() const {
    ScratchNeeds needs;
    needs.block_voxels = block_voxels_;
    needs.classes = classes_;
    needs.state_planes = state_layout.planes();
    needs.label_planes = reading_.multilabel ? classes_ : 1;
    needs.statistics_words =
        finishes && finish.counting.wanted ? finish.counting.layout.words() : 0;
    needs.statistics_rows = finish.counting.rows();
    return needs;
  }

  static std::vector<Real> open_thresholds(const Counting &counting);

  void plan(const std::vector<std::int64_t> &shape) {
    std::vector<View *> operands;
    for (View &member : members.views) {
      operands.push_back(&member);
    }
    if (state.data != nullptr) {
      operands.push_back(&state);
    }
    int pinned = 0;
    if (finishes) {
      for (View &map : finish.maps.views) {
        if (map.data != nullptr) {
          operands.push_back(&map);
        }
      }
      Counting &counting = finish.counting;
      if (counting.wanted) {
        operands.push_back(&counting.target);
        if (counting.mask.data != nullptr) {
          operands.push_back(&counting.mask);
        }
        if (counting.regions.data != nullptr) {
          operands.push_back(&counting.regions);
        }
        groups_ = counting.groups;
        thresholds_ = open_thresholds(counting);
        pinned = groups_ > 1 ? 1 : 0;
      }
    }
    walk_ = plan_walk(shape, operands, pinned);
    group_voxels_ = walk_.voxels / std::max<std::int64_t>(groups_, 1);
    // Maps of a large volume would only push the members out of the caches.
    past_caches_ =
        finishes && walk_.voxels * static_cast<std::int64_t>(sizeof(Real)) > kCachedBytes;
  }

  // ------------------------------------------------------------------------------ one block

  void work(const Block &block, Scratch<Real> &scratch) {
    Planes planes = open_state(block, scratch);
    if (const Real *only = single_probabilities(block, scratch, &planes.pitch)) {
      planes.data = const_cast<Real *>(only);
    } else {
      for (std::size_t m = 0; m < members.views.size(); ++m) {
        accumulate(block, scratch, m, planes);
      }
    }
    if (finishes) {
      finish_block(block, scratch, planes);
    } else {
      close_state(block, planes);
    }
  }

  // Where the running sums of this block are: in the state's own memory, or in a tile.
  Planes open_state(const Block &block, Scratch<Real> &scratch) {
    if (state.data == nullptr) {
      for (std::int64_t k = 0; k < state_layout.planes(); ++k) {
        std::fill_n(scratch.state + k * scratch.pitch, block.padded, Real{0});
      }
      return {scratch.state, scratch.pitch};
    }
    return read_planes(block, state, state_layout.planes(), scratch.state, scratch.pitch);
  }

  void close_state(const Block &block, const Planes &planes) {
    if (block.is_direct(walk_, state, real_dtype<Real>())) {
      return;
    }
    for (const Segment &segment : block.segments) {
      kernels_.store(run_of(walk_, state, segment, state_layout.planes()),
                     planes.data + segment.first, planes.pitch, false);
    }
  }

  Planes read_planes(const Block &block, const View &view, std::int64_t planes, Real *tile,
                     std::int64_t pitch) {
    if (block.is_direct(walk_, view, real_dtype<Real>())) {
      const Run run = run_of(walk_, view, block.segments.front(), planes);
      return {static_cast<Real *>(const_cast<void *>(run.data)), view.class_stride};
    }
    for (const Segment &segment : block.segments) {
      kernels_.load(run_of(walk_, view, segment, planes), tile + segment.first, pitch);
    }
    for (std::int64_t k = 0; k < planes; ++k) {
      std::fill(tile + k * pitch + block.voxels, tile + k * pitch + block.padded, Real{0});
    }
    return {tile, pitch};
  }

  // The member's planes, turned to logits where the temperature or the space asks for it.
  Planes read_member(const Block &block, Scratch<Real> &scratch, std::size_t m, Holds *holds) {
    Planes planes = read_planes(block, members.views[m], classes_, scratch.member, scratch.pitch);
    *holds = reading_.from_logits ? Holds::kLogits : Holds::kProbabilities;
    if (!reading_.from_logits && (reading_.logit_space || members.temperatures[m] != 1.0)) {
      if (planes.data != scratch.member) {
        for (std::int64_t c = 0; c < classes_; ++c) {
          std::copy_n(planes.data + c * planes.pitch, block.padded,
                      scratch.member + c * scratch.pitch);
        }
        planes = {scratch.member, scratch.pitch};
      }
      kernels_.to_logits(planes.data, planes.pitch, block.padded, classes_, activation());
      *holds = Holds::kLogits;
    }
    return planes;
  }

  Activation activation() const {
    return reading_.multilabel ? Activation::kSigmoid : reading_.activation;
  }

  // One member of probabilities with weight 1 is its own mean: nothing to accumulate.
  const Real *single_probabilities(const Block &block, Scratch<Real> &scratch,
                                   std::int64_t *pitch) {
    const bool single = finishes && state.data == nullptr && members.views.size() == 1 &&
                        !reading_.from_logits && !reading_.logit_space &&
                        members.temperatures[0] == 1.0 && members.weights[0] == 1.0 &&
                        state_layout.planes() == classes_;
    if (!single) {
      return nullptr;
    }
    const Planes planes =
        read_planes(block, members.views[0], classes_, scratch.member, scratch.pitch);
    *pitch = planes.pitch;
    return planes.data;
  }

  void accumulate(const Block &block, Scratch<Real> &scratch, std::size_t m, const Planes &planes) {
    Accumulate<Real> a{};
    const View &view = members.views[m];
    if (reads_halves() && block.is_direct(walk_, view, view.dtype)) {
      a.member = run_of(walk_, view, block.segments.front(), classes_).data;
      a.dtype = view.dtype;
      a.member_pitch = view.class_stride;
      a.holds = Holds::kLogits;
    } else {
      const Planes member = read_member(block, scratch, m, &a.holds);
      a.member = member.data;
      a.dtype = real_dtype<Real>();
      a.member_pitch = member.pitch;
    }
    a.voxels = block.padded;
    a.classes = classes_;
    a.activation = activation();
    a.multilabel = reading_.multilabel;
    a.logit_space = reading_.logit_space;
    a.prefetch = a.member != scratch.member;
    a.weight = static_cast<Real>(members.weights[m]);
    a.inverse_temperature = static_cast<Real>(1.0 / members.temperatures[m]);
    a.sum = planes.data;
    a.pitch = planes.pitch;
    a.entropy = state_layout.entropy ? plane(planes, state_layout.entropy_plane()) : nullptr;
    a.square = state_layout.square ? plane(planes, state_layout.square_plane()) : nullptr;
    a.votes = state_layout.votes ? plane(planes, state_layout.votes_plane()) : nullptr;
    a.lane_scratch = scratch.lanes;
    a.totals = scratch.class_sum;
    kernels_.accumulate(a);
  }

  // A plain softmax of logits takes half precision from memory; the rest wants a tile of Real.
  bool reads_halves() const {
    return reading_.from_logits && activation() == Activation::kSoftmax && !reading_.logit_space &&
           !state_layout.square && !state_layout.votes;
  }

  static Real *plane(const Planes &planes, std::int64_t k) {
    return planes.data + k * planes.pitch;
  }

  Real *tile_of(Scratch<Real> &scratch, Map map) const {
    return finish.maps.wants(map) ? scratch.maps[static_cast<int>(map)] : nullptr;
  }

  void finish_block(const Block &block, Scratch<Real> &scratch, const Planes &planes) {
    const Counting &counting = finish.counting;
    FinishBlock<Real> f{};
    f.sum = planes.data;
    f.pitch = planes.pitch;
    f.voxels = block.padded;
    f.classes = classes_;
    f.activation = activation();
    f.multilabel = reading_.multilabel;
    f.logit_space = reading_.logit_space;
    f.normalise = finish.normalise;
    f.check_range = !reading_.from_logits && !reading_.logit_space;
    f.scale = static_cast<Real>(1.0 / total_weight);
    f.inverse_members = static_cast<Real>(1.0 / static_cast<double>(n_members));
    f.entropy_sum = state_layout.entropy ? plane(planes, state_layout.entropy_plane()) : nullptr;
    f.square_sum = state_layout.square ? plane(planes, state_layout.square_plane()) : nullptr;
    f.votes = state_layout.votes ? plane(planes, state_layout.votes_plane()) : nullptr;
    f.lane_scratch = scratch.lanes;
    f.block_pitch = scratch.pitch;

    const bool mean =
        finish.maps.wants(Map::kMean) || counting.wanted || f.logit_space || f.normalise;
    f.mean = mean ? scratch.mean : nullptr;
    f.mean_pitch = scratch.pitch;
    f.sum_serves = total_weight == 1.0 && !finish.maps.wants(Map::kMean);
    f.prefetch = planes.data != scratch.state && planes.data != scratch.member;
    const bool wants_confidence =
        finish.maps.wants(Map::kConfidence) || (counting.wanted && counting.layout.top_label);
    f.confidence = wants_confidence ? scratch.confidence : nullptr;
    f.label = finish.maps.wants(Map::kLabel) || counting.wanted ? scratch.label : nullptr;
    f.entropy = tile_of(scratch, Map::kEntropy);
    f.expected_entropy = tile_of(scratch, Map::kExpectedEntropy);
    f.mutual_information = tile_of(scratch, Map::kMutualInformation);
    f.variance = tile_of(scratch, Map::kVariance);
    f.disagreement = tile_of(scratch, Map::kDisagreement);
    const bool checks_sum = counting.wanted && f.check_range && !f.multilabel && !f.normalise &&
                            reading_.activation == Activation::kSoftmax;
    f.validity = counting.wanted ? scratch.validity : nullptr;
    f.class_sum = checks_sum ? scratch.class_sum : nullptr;
    if (!kernels_.finish(f)) {
      f.mean = planes.data;
      f.mean_pitch = planes.pitch;
    }

    if (counting.wanted) {
      count_block(block, scratch, f);
    }
    store_maps(block, scratch);
  }

  void count_block(const Block &block, Scratch<Real> &scratch, const FinishBlock<Real> &f) {
    const Counting &counting = finish.counting;
    TargetBlock t{};
    t.multilabel = reading_.multilabel;
    t.has_ignore_index = counting.has_ignore_index;
    t.ignore_index = counting.ignore_index;
    t.num_classes = reading_.multilabel ? 2 : classes_;
    t.pitch = scratch.pitch;
    t.row = scratch.rows;
    t.prefetch = block.segments.size() == 1;
    for (const Segment &segment : block.segments) {
      t.target =
          run_of(walk_, counting.target, segment, reading_.multilabel ? classes_ : std::int64_t{1});
      t.mask = counting.mask.data == nullptr ? Run{} : run_of(walk_, counting.mask, segment, 1);
      t.classes = scratch.target + segment.first;
      t.keep = scratch.keep + segment.first;
      isa_.counts->load_target(t);
    }
    std::fill(scratch.keep + block.voxels, scratch.keep + block.padded, 0);

    CountBlock<Real> c{};
    c.mean = f.mean;
    c.mean_pitch = f.mean_pitch;
    c.voxels = block.padded;
    c.multilabel = reading_.multilabel;
    c.target = scratch.target;
    c.label = scratch.label;
    c.confidence = scratch.confidence;
    c.pitch = scratch.pitch;
    c.validity = scratch.validity;
    c.class_sum = f.class_sum;
    c.thresholds = thresholds_.data();
    c.eps = static_cast<Real>(counting.eps);
    c.entropy_scale = static_cast<Real>(counting.entropy_scale);
    c.layout = counting.layout;
    count_regions(block, scratch, c);
    c.keep = scratch.keep;
    c.row = scratch.rows;
    count<Real>(isa_, c);
  }

  // Counts the block once more for every region that has voxels here.
  void count_regions(const Block &block, Scratch<Real> &scratch, CountBlock<Real> &c) {
    const Counting &counting = finish.counting;
    if (counting.n_regions == 0) {
      return;
    }
    for (const Segment &segment : block.segments) {
      const Run run = run_of(walk_, counting.regions, segment, 1);
      const auto *from = static_cast<const std::uint8_t *>(run.data);
      for (std::int64_t v = 0; v < segment.voxels; ++v) {
        scratch.regions[segment.first + v] = from[v * run.voxel_stride];
      }
    }
    std::fill(scratch.regions + block.voxels, scratch.regions + block.padded, std::uint8_t{0});
    c.keep = scratch.region_keep;
    for (int r = 0; r < counting.n_regions; ++r) {
      std::int32_t any = 0;
      for (std::int64_t v = 0; v < block.padded; ++v) {
        const std::int32_t inside = -((scratch.regions[v] >> r) & 1);
        scratch.region_keep[v] = scratch.keep[v] & inside;
        any |= scratch.region_keep[v];
      }
      if (any != 0) {
        c.row = scratch.rows + (1 + r) * counting.layout.words();
        count<Real>(isa_, c);
      }
    }
  }

  void store_maps(const Block &block, const Scratch<Real> &scratch) const {
    const std::int64_t label_planes = reading_.multilabel ? classes_ : 1;
    for (const Segment &segment : block.segments) {
      const auto put = [&](Map map, const Real *tile, std::int64_t planes) {
        if (finish.maps.wants(map)) {
          kernels_.store(run_of(walk_, finish.maps[map], segment, planes), tile + segment.first,
                         scratch.pitch, past_caches_);
        }
      };
      put(Map::kMean, scratch.mean, classes_);
      put(Map::kConfidence, scratch.confidence, label_planes);
      for (const Map map : {Map::kEntropy, Map::kExpectedEntropy, Map::kMutualInformation,
                            Map::kVariance, Map::kDisagreement}) {
        put(map, scratch.maps[static_cast<int>(map)], 1);
      }
      if (finish.maps.wants(Map::kLabel)) {
        isa_.maps->store_labels(run_of(walk_, finish.maps[Map::kLabel], segment, label_planes),
                                scratch.label + segment.first, scratch.pitch, past_caches_);
      }
    }
  }

  const Isa &isa_;
  const MapsKernels<Real> &kernels_;
  const Reading reading_;
  const std::int64_t classes_;
  const std::int64_t block_voxels_;
  Walk walk_;
  std::vector<Real> thresholds_;
  std::int64_t groups_ = 1;
  std::int64_t group_voxels_ = 0;
  bool past_caches_ = false;
  std::mutex statistics_mutex_;
};

// The thresholds such that p > t means "in a higher cell": p >= t is p > the number before t. What
// follows them is read in whole vectors, and nothing lies above it.
template <typename Real> std::vector<Real> Pass<Real>::open_thresholds(const Counting &counting) {
  const auto *edges = static_cast<const Real *>(counting.thresholds);
  std::vector<Real> open(edges, edges + counting.layout.n_cells - 1);
  for (Real &threshold : open) {
    threshold = counting.left_closed
                    ? std::nextafter(threshold, -std::numeric_limits<Real>::infinity())
                    : threshold;
  }
  open.insert(open.end(), kThresholdPadding, std::numeric_limits<Real>::infinity());
  return open;
}

} // namespace fastcal::cpu
