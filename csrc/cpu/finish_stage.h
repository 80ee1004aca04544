// The second stage on one block of voxels: maps out, statistics counted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "cpu/pass_problem.h"
#include "cpu/planes.h"
#include "cpu/scratch.h"

namespace fastcal::cpu {

template <typename Real> class FinishStage {
public:
  // Both must outlive the stage.
  FinishStage(const PassProblem &problem, const BlockTransfer<Real> &transfer)
      : problem_(problem), maps_(problem.finish.maps), counting_(problem.finish.counting),
        transfer_(transfer), kernels_(kernels_of<Real>(*transfer.isa().maps)),
        targets_(targets_of(problem)),
        past_caches_(transfer.walk().voxels * static_cast<std::int64_t>(sizeof(Real)) >
                     kCachedBytes) {
    if (problem.counts()) {
      thresholds_ = open_thresholds(counting_);
    }
  }

  void run(const Block &block, const Planes<Real> &sums, Scratch<Real> &scratch) const {
    FinishBlock<Real> f = describe(block, sums, scratch);
    if (!kernels_.finish(f)) {
      f.mean = sums.data;
      f.mean_pitch = sums.pitch;
    }
    if (counting_.wanted) {
      count_block(block, scratch, f);
    }
    store_maps(block, scratch);
  }

  // To be called by a thread after its last block.
  void end_thread() const {
    if (past_caches_) {
      transfer_.fence();
    }
  }

private:
  // Maps of a larger volume would only push the members out of the caches.
  static constexpr std::int64_t kCachedBytes = 8 << 20;

  static Targets targets_of(const PassProblem &problem) {
    const Counting &counting = problem.finish.counting;
    Targets targets;
    targets.target = counting.target;
    targets.mask = counting.mask;
    targets.planes = problem.label_planes();
    targets.num_classes = problem.reading.multilabel ? 2 : problem.classes;
    targets.multilabel = problem.reading.multilabel;
    targets.has_ignore_index = counting.has_ignore_index;
    targets.ignore_index = counting.ignore_index;
    return targets;
  }

  // The thresholds for which p > t means "in a higher cell": p >= t is the same as p > the number
  // before t. The infinities behind them are read by whole vectors, and nothing lies above them.
  static std::vector<Real> open_thresholds(const Counting &counting) {
    constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
    const auto *edges = static_cast<const Real *>(counting.thresholds);
    std::vector<Real> open(edges, edges + counting.layout.n_cells - 1);
    if (counting.left_closed) {
      for (Real &threshold : open) {
        threshold = std::nextafter(threshold, -kInfinity);
      }
    }
    open.insert(open.end(), kThresholdPadding, kInfinity);
    return open;
  }

  FinishBlock<Real> describe(const Block &block, const Planes<Real> &sums,
                             Scratch<Real> &scratch) const {
    const Reading &reading = problem_.reading;
    const StateLayout &layout = problem_.layout;
    FinishBlock<Real> f{};
    f.sum = sums.data;
    f.pitch = sums.pitch;
    f.voxels = block.padded;
    f.classes = problem_.classes;
    f.activation = problem_.activation();
    f.multilabel = reading.multilabel;
    f.logit_space = reading.logit_space;
    f.normalise = problem_.finish.normalise;
    f.check_range = !reading.from_logits && !reading.logit_space;
    f.scale = static_cast<Real>(1.0 / problem_.totals.weight);
    f.inverse_members = static_cast<Real>(1.0 / static_cast<double>(problem_.totals.count));
    f.entropy_sum = layout.entropy ? sums.plane(layout.entropy_plane()) : nullptr;
    f.square_sum = layout.square ? sums.plane(layout.square_plane()) : nullptr;
    f.votes = layout.votes ? sums.plane(layout.votes_plane()) : nullptr;
    f.lane_scratch = scratch.lanes;
    f.block_pitch = scratch.pitch;

    const bool mean = maps_.wants(Map::kMean) || counting_.wanted || f.logit_space || f.normalise;
    f.mean = mean ? scratch.mean : nullptr;
    f.mean_pitch = scratch.pitch;
    f.sum_serves = problem_.totals.weight == 1.0 && !maps_.wants(Map::kMean);
    f.prefetch = sums.data != scratch.state && sums.data != scratch.member;
    const bool confidence =
        maps_.wants(Map::kConfidence) || (counting_.wanted && counting_.layout.top_label);
    f.confidence = confidence ? scratch.confidence : nullptr;
    f.label = maps_.wants(Map::kLabel) || counting_.wanted ? scratch.label : nullptr;
    f.entropy = tile_of(scratch, Map::kEntropy);
    f.expected_entropy = tile_of(scratch, Map::kExpectedEntropy);
    f.mutual_information = tile_of(scratch, Map::kMutualInformation);
    f.variance = tile_of(scratch, Map::kVariance);
    f.disagreement = tile_of(scratch, Map::kDisagreement);
    const bool checks_sum = counting_.wanted && f.check_range && !f.multilabel && !f.normalise &&
                            reading.activation == Activation::kSoftmax;
    f.validity = counting_.wanted ? scratch.validity : nullptr;
    f.class_sum = checks_sum ? scratch.class_sum : nullptr;
    return f;
  }

  Real *tile_of(Scratch<Real> &scratch, Map map) const {
    return maps_.wants(map) ? scratch.maps[static_cast<int>(map)] : nullptr;
  }

  void count_block(const Block &block, Scratch<Real> &scratch, const FinishBlock<Real> &f) const {
    transfer_.read_targets(block, targets_, {scratch.target, scratch.keep, scratch.pitch},
                           scratch.rows);
    CountBlock<Real> c{};
    c.mean = f.mean;
    c.mean_pitch = f.mean_pitch;
    c.voxels = block.padded;
    c.multilabel = problem_.reading.multilabel;
    c.target = scratch.target;
    c.label = scratch.label;
    c.confidence = scratch.confidence;
    c.pitch = scratch.pitch;
    c.validity = scratch.validity;
    c.class_sum = f.class_sum;
    c.thresholds = thresholds_.data();
    c.eps = static_cast<Real>(counting_.eps);
    c.entropy_scale = static_cast<Real>(counting_.entropy_scale);
    c.layout = counting_.layout;
    // The row of all voxels comes last, since counting it takes invalid voxels out of `keep`, and
    // the regions count theirs too.
    if (counting_.n_regions > 0) {
      count_regions(block, scratch, c);
    }
    c.keep = scratch.keep;
    c.row = scratch.rows;
    count(c);
  }

  // Counts the block once more for each region that has voxels in it.
  void count_regions(const Block &block, Scratch<Real> &scratch, CountBlock<Real> c) const {
    read_regions(block, scratch.regions);
    c.keep = scratch.region_keep;
    for (int r = 0; r < counting_.n_regions; ++r) {
      std::int32_t any = 0;
      for (std::int64_t v = 0; v < block.padded; ++v) {
        const std::int32_t inside = -((scratch.regions[v] >> r) & 1);
        scratch.region_keep[v] = scratch.keep[v] & inside;
        any |= scratch.region_keep[v];
      }
      if (any != 0) {
        c.row = scratch.rows + (1 + r) * counting_.layout.words();
        count(c);
      }
    }
  }

  void read_regions(const Block &block, std::uint8_t *regions) const {
    for (const Segment &segment : block.segments) {
      const Run run = run_of(transfer_.walk(), counting_.regions, segment, 1);
      const auto *from = static_cast<const std::uint8_t *>(run.data);
      for (std::int64_t v = 0; v < segment.voxels; ++v) {
        regions[segment.first + v] = from[v * run.voxel_stride];
      }
    }
    std::fill(regions + block.voxels, regions + block.padded, std::uint8_t{0});
  }

  void count(const CountBlock<Real> &block) const {
    if constexpr (std::is_same_v<Real, float>) {
      transfer_.isa().counts->count_f32(block);
    } else {
      transfer_.isa().counts->count_f64(block);
    }
  }

  void store_maps(const Block &block, const Scratch<Real> &scratch) const {
    const auto put = [&](Map map, const Real *tile, std::int64_t planes) {
      if (maps_.wants(map)) {
        transfer_.write(block, {tile, scratch.pitch}, maps_[map], planes, past_caches_);
      }
    };
    put(Map::kMean, scratch.mean, problem_.classes);
    put(Map::kConfidence, scratch.confidence, problem_.label_planes());
    for (const Map map : {Map::kEntropy, Map::kExpectedEntropy, Map::kMutualInformation,
                          Map::kVariance, Map::kDisagreement}) {
      put(map, scratch.maps[static_cast<int>(map)], 1);
    }
    if (maps_.wants(Map::kLabel)) {
      for (const Segment &segment : block.segments) {
        const Run run =
            run_of(transfer_.walk(), maps_[Map::kLabel], segment, problem_.label_planes());
        transfer_.isa().maps->store_labels(run, scratch.label + segment.first, scratch.pitch,
                                           past_caches_);
      }
    }
  }

  const PassProblem &problem_;
  const Maps &maps_;
  const Counting &counting_;
  const BlockTransfer<Real> &transfer_;
  const MapsKernels<Real> &kernels_;
  const Targets targets_;
  const bool past_caches_;
  std::vector<Real> thresholds_;
};

} // namespace fastcal::cpu
