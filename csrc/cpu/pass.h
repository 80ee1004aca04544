// A pass over blocks of voxels, through both stages while a block is in the cache: what the single
// call, a streamed update and the end of a stream have in common.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/accumulate_stage.h"
#include "cpu/finish_stage.h"
#include "cpu/statistics_row.h"
#include "cpu/thread_pool.h"

namespace fastcal::cpu {

template <typename Real> class Pass {
public:
  Pass(PassProblem problem, const std::vector<std::int64_t> &shape)
      : problem_(std::move(problem)), block_voxels_(block_voxels_for(problem_.classes)),
        groups_(problem_.counts() ? problem_.finish.counting.groups : 1),
        transfer_(current_isa(), plan_walk(shape, operands_of(problem_), groups_ > 1 ? 1 : 0)),
        group_voxels_(transfer_.walk().voxels / std::max<std::int64_t>(groups_, 1)),
        accumulate_(problem_, transfer_), finish_(problem_, transfer_) {}

  Pass(const Pass &) = delete; // the stages refer to its problem
  Pass &operator=(const Pass &) = delete;

  void run(int n_threads) {
    if (transfer_.walk().voxels == 0) {
      return;
    }
    const std::int64_t blocks_per_group = (group_voxels_ + block_voxels_ - 1) / block_voxels_;
    const std::int64_t wanted_chunks = std::int64_t{8} * n_threads;
    const std::int64_t blocks = blocks_per_group * groups_;
    const std::int64_t chunk = std::clamp(blocks / wanted_chunks, std::int64_t{1}, kChunkBlocks);
    const std::int64_t chunks_per_group = (blocks_per_group + chunk - 1) / chunk;
    const std::int64_t chunks = chunks_per_group * groups_;
    const std::int64_t workers = std::min<std::int64_t>(n_threads, chunks);
    std::atomic<std::int64_t> next{0};
    parallel_for(workers, static_cast<int>(workers), [&](std::int64_t) {
      Worker worker(*this);
      for (std::int64_t c = next.fetch_add(1); c < chunks; c = next.fetch_add(1)) {
        const std::int64_t group = c / chunks_per_group;
        const std::int64_t first = c % chunks_per_group * chunk * block_voxels_;
        const std::int64_t end = std::min(group_voxels_, first + chunk * block_voxels_);
        worker.chunk(group, group * group_voxels_ + first, group * group_voxels_ + end);
      }
      worker.flush();
    });
  }

private:
  static constexpr std::int64_t kChunkBlocks = 64;

  // One thread's share: scratch memory, and rows of statistics of its own.
  class Worker {
  public:
    explicit Worker(Pass &pass)
        : pass_(pass), counting_(pass.problem_.finish.counting), scratch_(pass.needs()),
          rows_(pass.problem_.counts() ? counting_.rows() : 0) {
      clear_rows();
    }

    void chunk(std::int64_t group, std::int64_t first, std::int64_t end) {
      if (group != group_) {
        flush();
        group_ = group;
      }
      for (std::int64_t voxel = first; voxel < end; voxel += pass_.block_voxels_) {
        block_.place(pass_.transfer_.walk(), voxel, std::min(pass_.block_voxels_, end - voxel));
        pass_.work(block_, scratch_);
      }
      for (std::int64_t r = 0; r < rows_; ++r) {
        carry_bins(counting_.layout, row(r));
      }
    }

    void flush() {
      if (pass_.problem_.finishes) {
        pass_.finish_.end_thread();
      }
      const std::lock_guard<std::mutex> lock(pass_.statistics_mutex_);
      for (std::int64_t r = 0; r < rows_; ++r) {
        add_row(counting_.layout, row(r),
                counting_.statistics + (group_ * rows_ + r) * counting_.layout.words());
      }
      clear_rows();
    }

  private:
    std::int64_t *row(std::int64_t r) { return scratch_.rows + r * counting_.layout.words(); }
    void clear_rows() { std::fill_n(scratch_.rows, rows_ * counting_.layout.words(), 0); }

    Pass &pass_;
    const Counting &counting_;
    Scratch<Real> scratch_;
    const std::int64_t rows_; // 0 where nothing is counted
    Block block_;
    std::int64_t group_ = 0;
  };

  ScratchNeeds needs() const {
    const Counting &counting = problem_.finish.counting;
    ScratchNeeds needs;
    needs.block_voxels = block_voxels_;
    needs.classes = problem_.classes;
    needs.state_planes = problem_.layout.planes();
    needs.label_planes = problem_.label_planes();
    needs.statistics_words = problem_.counts() ? counting.layout.words() : 0;
    needs.statistics_rows = counting.rows();
    return needs;
  }

  static std::vector<View *> operands_of(PassProblem &problem) {
    std::vector<View *> operands;
    const auto add = [&operands](View &view) {
      if (view.data != nullptr) {
        operands.push_back(&view);
      }
    };
    for (View &member : problem.members.views) {
      operands.push_back(&member);
    }
    add(problem.state);
    if (problem.finishes) {
      for (View &map : problem.finish.maps.views) {
        add(map);
      }
    }
    if (problem.counts()) {
      Counting &counting = problem.finish.counting;
      operands.push_back(&counting.target);
      add(counting.mask);
      add(counting.regions);
    }
    return operands;
  }

  void work(const Block &block, Scratch<Real> &scratch) const {
    const Planes<Real> sums = accumulate_.run(block, scratch);
    if (problem_.finishes) {
      finish_.run(block, sums, scratch);
    } else {
      accumulate_.close(block, sums);
    }
  }

  PassProblem problem_;
  const std::int64_t block_voxels_;
  const std::int64_t groups_;
  const BlockTransfer<Real> transfer_; // its walk was planned over the problem's views
  const std::int64_t group_voxels_;
  const AccumulateStage<Real> accumulate_;
  const FinishStage<Real> finish_;
  std::mutex statistics_mutex_;
};

} // namespace fastcal::cpu
