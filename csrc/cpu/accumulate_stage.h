// The first stage on one block of voxels: its members added up.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/pass_problem.h"
#include "cpu/planes.h"
#include "cpu/scratch.h"

namespace fastcal::cpu {

template <typename Real> class AccumulateStage {
public:
  // Both must outlive the stage.
  AccumulateStage(const PassProblem &problem, const BlockTransfer<Real> &transfer)
      : problem_(problem), transfer_(transfer), kernels_(kernels_of<Real>(*transfer.isa().maps)) {}

  // The sums over the members: in the state's own memory, in a tile, or in the only member's.
  Planes<Real> run(const Block &block, Scratch<Real> &scratch) const {
    if (is_its_own_mean()) {
      return transfer_.read(block, problem_.members.views[0], problem_.classes,
                            {scratch.member, scratch.pitch});
    }
    const Planes<Real> sums = open(block, scratch);
    for (std::size_t m = 0; m < problem_.members.views.size(); ++m) {
      add_member(block, scratch, m, sums);
    }
    return sums;
  }

  // Writes the sums back to the streamed state, unless they are there already.
  void close(const Block &block, const Planes<Real> &sums) const {
    if (!transfer_.is_direct(block, problem_.state, real_dtype<Real>())) {
      transfer_.write(block, {sums.data, sums.pitch}, problem_.state, problem_.layout.planes(),
                      false);
    }
  }

private:
  // A single member of probabilities with weight 1 needs no sums.
  bool is_its_own_mean() const {
    const Reading &reading = problem_.reading;
    const Members &members = problem_.members;
    return problem_.finishes && problem_.state.data == nullptr && members.views.size() == 1 &&
           !reading.from_logits && !reading.logit_space && members.temperatures[0] == 1.0 &&
           members.weights[0] == 1.0 && problem_.layout.planes() == problem_.classes;
  }

  Planes<Real> open(const Block &block, Scratch<Real> &scratch) const {
    const Planes<Real> tile{scratch.state, scratch.pitch};
    const std::int64_t planes = problem_.layout.planes();
    if (problem_.state.data != nullptr) {
      return transfer_.read(block, problem_.state, planes, tile);
    }
    for (std::int64_t k = 0; k < planes; ++k) {
      std::fill_n(tile.plane(k), block.padded, Real{0});
    }
    return tile;
  }

  void add_member(const Block &block, Scratch<Real> &scratch, std::size_t m,
                  const Planes<Real> &sums) const {
    const StateLayout &layout = problem_.layout;
    const View &view = problem_.members.views[m];
    Accumulate<Real> a{};
    if (reads_halves() && transfer_.is_direct(block, view, view.dtype)) {
      a.member = transfer_.direct_run(block, view, problem_.classes).data;
      a.dtype = view.dtype;
      a.member_pitch = view.class_stride;
      a.holds = Holds::kLogits;
    } else {
      const Planes<Real> member = read_member(block, scratch, m, &a.holds);
      a.member = member.data;
      a.dtype = real_dtype<Real>();
      a.member_pitch = member.pitch;
    }
    a.voxels = block.padded;
    a.classes = problem_.classes;
    a.activation = problem_.activation();
    a.multilabel = problem_.reading.multilabel;
    a.logit_space = problem_.reading.logit_space;
    a.prefetch = a.member != scratch.member;
    a.weight = static_cast<Real>(problem_.members.weights[m]);
    a.inverse_temperature = static_cast<Real>(1.0 / problem_.members.temperatures[m]);
    a.sum = sums.data;
    a.pitch = sums.pitch;
    a.entropy = layout.entropy ? sums.plane(layout.entropy_plane()) : nullptr;
    a.square = layout.square ? sums.plane(layout.square_plane()) : nullptr;
    a.votes = layout.votes ? sums.plane(layout.votes_plane()) : nullptr;
    a.lane_scratch = scratch.lanes;
    a.totals = scratch.class_sum;
    kernels_.accumulate(a);
  }

  // The kernel of a plain softmax reads half precision from memory; the others want a tile of Real.
  bool reads_halves() const {
    const Reading &reading = problem_.reading;
    return reading.from_logits && problem_.activation() == Activation::kSoftmax &&
           !reading.logit_space && !problem_.layout.square && !problem_.layout.votes;
  }

  // The member's planes, as logits where its temperature or the space of the mean asks for them.
  Planes<Real> read_member(const Block &block, Scratch<Real> &scratch, std::size_t m,
                           Holds *holds) const {
    const View &view = problem_.members.views[m];
    const Planes<Real> tile{scratch.member, scratch.pitch};
    const Reading &reading = problem_.reading;
    if (reading.from_logits) {
      *holds = Holds::kLogits;
      return transfer_.read(block, view, problem_.classes, tile);
    }
    if (!reading.logit_space && problem_.members.temperatures[m] == 1.0) {
      *holds = Holds::kProbabilities;
      return transfer_.read(block, view, problem_.classes, tile);
    }
    transfer_.copy(block, view, problem_.classes, tile); // the conversion is in place
    kernels_.to_logits(tile.data, tile.pitch, block.padded, problem_.classes,
                       problem_.activation());
    *holds = Holds::kLogits;
    return tile;
  }

  const PassProblem &problem_;
  const BlockTransfer<Real> &transfer_;
  const MapsKernels<Real> &kernels_;
};

} // namespace fastcal::cpu
