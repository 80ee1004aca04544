#include "cpu/segments.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "cpu/planes.h"
#include "cpu/scratch.h"
#include "cpu/statistics_row.h"
#include "cpu/thread_pool.h"

namespace fastcal::cpu {

namespace {

template <typename Real> struct Tiles {
  std::int64_t pitch = 0;
  Real *mean = nullptr;             // [classes][pitch]
  Real *votes = nullptr;            // [classes][pitch]
  Real *entropy = nullptr;          // [pitch]
  Real *information = nullptr;      // [pitch]
  std::int32_t *label = nullptr;    // [label planes][pitch]
  std::int32_t *interior = nullptr; // [label planes][pitch]
  std::int32_t *keep = nullptr;     // [pitch]
  std::int32_t *spare = nullptr;    // [pitch]: the `keep` of the interior, which keeps all

  Tiles(std::int64_t voxels, const SegmentProblem &problem) : pitch(voxels + kLaneMultiple) {
    Arena::cut([&](Arena &arena) {
      const std::int64_t planes = problem.classes * pitch;
      const std::int64_t label_planes = problem.multilabel ? planes : pitch;
      arena.take(mean, planes);
      arena.take(votes, problem.votes.data == nullptr ? 0 : planes);
      arena.take(entropy, pitch);
      arena.take(information, pitch);
      arena.take(label, label_planes);
      arena.take(interior, label_planes);
      arena.take(keep, pitch);
      arena.take(spare, pitch);
    });
  }
};

template <typename Real> class SegmentPass {
public:
  SegmentPass(const std::vector<std::int64_t> &shape, const SegmentProblem &problem)
      : problem_(problem), add_(kernels_of<Real>(*current_isa().segments)),
        transfer_(current_isa(), plan_walk(shape, operands_of(problem_), 1)),
        labels_(targets_of(problem_, problem_.label)),
        interior_(targets_of(problem_, problem_.interior)),
        block_voxels_(block_voxels_for(problem.classes)), items_(shape.front()),
        item_voxels_(items_ == 0 ? 0 : transfer_.walk().voxels / items_),
        row_words_(problem.classes * segment_word::kWords) {
    labels_.has_ignore_index = problem.has_ignore_index;
    labels_.ignore_index = problem.ignore_index;
    interior_.num_classes = 2;
  }

  void run(int n_threads) {
    if (item_voxels_ == 0) {
      return;
    }
    const std::int64_t blocks = (item_voxels_ + block_voxels_ - 1) / block_voxels_;
    const std::int64_t wanted = std::max<std::int64_t>(1, 8 * n_threads / items_);
    const std::int64_t chunk = (blocks + wanted - 1) / wanted * block_voxels_;
    const std::int64_t chunks = (item_voxels_ + chunk - 1) / chunk;
    parallel_for(items_ * chunks, n_threads, [&](std::int64_t c) {
      const std::int64_t first = c % chunks * chunk;
      add_chunk(c / chunks, first, std::min(item_voxels_, first + chunk));
    });
  }

private:
  static std::vector<View *> operands_of(SegmentProblem &problem) {
    std::vector<View *> operands;
    for (View *view : {&problem.mean, &problem.label, &problem.entropy, &problem.information,
                       &problem.votes, &problem.interior}) {
      if (view->data != nullptr) {
        operands.push_back(view);
      }
    }
    return operands;
  }

  static Targets targets_of(const SegmentProblem &problem, const View &view) {
    Targets targets;
    targets.target = view;
    targets.planes = problem.multilabel ? problem.classes : 1;
    targets.num_classes = problem.multilabel ? 2 : problem.classes;
    targets.multilabel = problem.multilabel;
    return targets;
  }

  void add_chunk(std::int64_t item, std::int64_t first, std::int64_t end) {
    const Tiles<Real> tiles(block_voxels_, problem_);
    std::vector<std::int64_t> rows(static_cast<std::size_t>(row_words_));
    Block block;
    for (std::int64_t voxel = first; voxel < end; voxel += block_voxels_) {
      block.place(transfer_.walk(), item * item_voxels_ + voxel,
                  std::min(block_voxels_, end - voxel));
      add_block(block, tiles, rows.data());
    }
    add_rows(rows.data(), problem_.sums + item * row_words_);
  }

  void add_block(const Block &block, const Tiles<Real> &tiles, std::int64_t *rows) const {
    std::int64_t read[word::kHeader] = {};
    transfer_.read_targets(block, labels_, {tiles.label, tiles.keep, tiles.pitch}, read);
    rows[segment_word::kBadLabel] += read[word::kBadTarget];
    const Planes<Real> mean =
        transfer_.read(block, problem_.mean, problem_.classes, {tiles.mean, tiles.pitch});
    const Planes<Real> votes = read_if_there(block, problem_.votes, tiles.votes, tiles.pitch);
    SegmentBlock<Real> b{};
    b.mean = mean.data;
    b.mean_pitch = mean.pitch;
    b.votes = votes.data;
    b.votes_pitch = votes.pitch;
    b.entropy = read_if_there(block, problem_.entropy, tiles.entropy, tiles.pitch).data;
    b.information = read_if_there(block, problem_.information, tiles.information, tiles.pitch).data;
    b.label = tiles.label;
    if (problem_.interior.data != nullptr) {
      transfer_.read_targets(block, interior_, {tiles.interior, tiles.spare, tiles.pitch}, read);
      b.interior = tiles.interior;
    }
    b.keep = tiles.keep;
    b.tile_pitch = tiles.pitch;
    b.voxels = block.padded;
    b.classes = problem_.classes;
    b.multilabel = problem_.multilabel;
    b.binary = problem_.binary;
    b.clip = problem_.clip;
    b.rows = rows;
    add_(b);
  }

  // The planes of an operand, null where it is absent. Maps have one plane, votes one per class.
  Planes<Real> read_if_there(const Block &block, const View &view, Real *tile,
                             std::int64_t pitch) const {
    const std::int64_t planes = &view == &problem_.votes ? problem_.classes : 1;
    return view.data == nullptr ? Planes<Real>{}
                                : transfer_.read(block, view, planes, {tile, pitch});
  }

  void add_rows(const std::int64_t *from, std::int64_t *to) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::int64_t w = 0; w < row_words_; ++w) {
      to[w] += from[w];
    }
    for (std::int64_t row = 0; row < row_words_; row += segment_word::kWords) {
      for (std::int64_t w = segment_word::kSoft; w < segment_word::kWords; w += 2) {
        carry(to + row + w);
      }
    }
  }

  SegmentProblem problem_;
  void (*const add_)(const SegmentBlock<Real> &block);
  const BlockTransfer<Real> transfer_; // its walk was planned over the problem's views
  Targets labels_;
  Targets interior_;
  const std::int64_t block_voxels_;
  const std::int64_t items_;
  const std::int64_t item_voxels_;
  const std::int64_t row_words_;
  std::mutex mutex_;
};

} // namespace

void segment_sums(const std::vector<std::int64_t> &shape, const SegmentProblem &problem,
                  int n_threads) {
  expects(!shape.empty(), "mean must have a batch axis");
  with_real(problem.mean.dtype,
            [&](auto real) { SegmentPass<decltype(real)>(shape, problem).run(n_threads); });
}

} // namespace fastcal::cpu
