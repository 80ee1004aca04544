#include "cpu/temperature.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/planes.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace fastcal::cpu {

namespace {

template <typename Real> struct Tiles {
  std::int64_t pitch = 0;
  Real *values = nullptr;         // [classes][pitch]
  Real *logits = nullptr;         // [classes][pitch]
  Real *products = nullptr;       // [classes][pitch]
  Real *scaled = nullptr;         // [classes][pitch]
  Real *total = nullptr;          // [pitch]
  Real *rest = nullptr;           // [pitch]
  Real *others = nullptr;         // [pitch]
  std::int32_t *target = nullptr; // [target planes][pitch]
  std::int32_t *keep = nullptr;   // [pitch]

  Tiles(std::int64_t voxels, const TemperatureProblem &problem) : pitch(voxels + kLaneMultiple) {
    Arena::cut([&](Arena &arena) { take_pieces(arena, problem); });
  }

private:
  void take_pieces(Arena &arena, const TemperatureProblem &problem) {
    const std::int64_t planes = problem.classes * pitch;
    const std::int64_t per_class = problem.per_class && !problem.bernoulli ? planes : 0;
    arena.take(values, planes);
    arena.take(logits, per_class);
    arena.take(products, per_class);
    arena.take(scaled, per_class);
    arena.take(total, pitch);
    arena.take(rest, pitch);
    arena.take(others, pitch);
    arena.take(target, problem.multilabel ? planes : pitch);
    arena.take(keep, pitch);
  }
};

template <typename Real> class TemperaturePass {
public:
  TemperaturePass(const std::vector<std::int64_t> &shape, const TemperatureProblem &problem)
      : problem_(problem), kernels_(kernels_of<Real>(*current_isa().temperature)),
        transfer_(current_isa(), plan_walk(shape, operands_of(problem_), 0)),
        targets_(targets_of(problem_)), block_voxels_(block_voxels_for(problem.classes)),
        layout_{problem.per_class ? problem.classes : 1},
        low_(static_cast<Real>(std::log(problem.floor.tiny))) {
    for (std::int64_t k = 0; k < layout_.parameters; ++k) {
      inverse_temperatures_.push_back(static_cast<Real>(problem.inverse_temperatures[k]));
    }
  }

  // Each chunk has its own row of sums. The number of chunks depends on the number of voxels only.
  void run(int n_threads) const {
    constexpr std::int64_t kMostChunks = 128;
    const std::int64_t voxels = transfer_.walk().voxels;
    const std::int64_t blocks = (voxels + block_voxels_ - 1) / block_voxels_;
    const std::int64_t chunk = (blocks + kMostChunks - 1) / kMostChunks * block_voxels_;
    const std::int64_t chunks = chunk == 0 ? 0 : (voxels + chunk - 1) / chunk;
    std::vector<double> sums(static_cast<std::size_t>(chunks * layout_.words()));
    std::vector<std::int64_t> counts(static_cast<std::size_t>(chunks * temperature_count::kWords));
    parallel_for(chunks, n_threads, [&](std::int64_t c) {
      add_chunk(c * chunk, std::min(voxels, (c + 1) * chunk),
                counts.data() + c * temperature_count::kWords, sums.data() + c * layout_.words());
    });
    for (std::int64_t c = 0; c < chunks; ++c) {
      for (std::int64_t w = 0; w < temperature_count::kWords; ++w) {
        problem_.counts[w] += counts[static_cast<std::size_t>(c * temperature_count::kWords + w)];
      }
      for (std::int64_t w = 0; w < layout_.words(); ++w) {
        problem_.sums[w] += sums[static_cast<std::size_t>(c * layout_.words() + w)];
      }
    }
  }

private:
  static std::vector<View *> operands_of(TemperatureProblem &problem) {
    std::vector<View *> operands{&problem.values, &problem.target};
    if (problem.mask.data != nullptr) {
      operands.push_back(&problem.mask);
    }
    return operands;
  }

  static Targets targets_of(const TemperatureProblem &problem) {
    Targets targets;
    targets.target = problem.target;
    targets.mask = problem.mask;
    targets.planes = problem.multilabel ? problem.classes : 1;
    targets.num_classes = problem.multilabel ? 2 : problem.classes;
    targets.multilabel = problem.multilabel;
    targets.has_ignore_index = problem.has_ignore_index;
    targets.ignore_index = problem.ignore_index;
    return targets;
  }

  void add_chunk(std::int64_t first, std::int64_t end, std::int64_t *counts, double *sums) const {
    const Tiles<Real> tiles(block_voxels_, problem_);
    Block block;
    for (std::int64_t voxel = first; voxel < end; voxel += block_voxels_) {
      block.place(transfer_.walk(), voxel, std::min(block_voxels_, end - voxel));
      add_block(block, tiles, counts, sums);
    }
  }

  void add_block(const Block &block, const Tiles<Real> &tiles, std::int64_t *counts,
                 double *sums) const {
    std::int64_t row[word::kHeader] = {};
    transfer_.read_targets(block, targets_, {tiles.target, tiles.keep, tiles.pitch}, row);
    counts[temperature_count::kBadTarget] += row[word::kBadTarget];
    TemperatureBlock<Real> b{};
    read_values(block, tiles, &b);
    b.voxels = block.padded;
    b.classes = problem_.classes;
    b.bernoulli = problem_.bernoulli;
    b.multilabel = problem_.multilabel;
    b.per_class = problem_.per_class;
    b.low = low_;
    b.inverse_temperatures = inverse_temperatures_.data();
    b.target = tiles.target;
    b.keep = tiles.keep;
    b.tile_pitch = tiles.pitch;
    b.total = tiles.total;
    b.rest = tiles.rest;
    b.others = tiles.others;
    b.logits = tiles.logits;
    b.products = tiles.products;
    b.scaled = tiles.scaled;
    b.n_voxels = counts + temperature_count::kVoxels;
    b.n_invalid = counts + temperature_count::kInvalid;
    b.sums = sums;
    kernels_.add(b);
  }

  // Where the block's logits lie: in the operand's own memory, or in a tile.
  void read_values(const Block &block, const Tiles<Real> &tiles, TemperatureBlock<Real> *b) const {
    const View &view = problem_.values;
    const std::int64_t classes = problem_.classes;
    const bool as_they_are = problem_.from_logits && transfer_.is_direct(block, view, view.dtype);
    const bool takes_halves = !problem_.bernoulli && !problem_.per_class;
    if (as_they_are && (view.dtype == real_dtype<Real>() || takes_halves)) {
      b->values = transfer_.direct_run(block, view, classes).data;
      b->dtype = view.dtype;
      b->pitch = view.class_stride;
      b->prefetch = true;
      return;
    }
    const Planes<Real> tile = transfer_.copy(block, view, classes, {tiles.values, tiles.pitch});
    if (!problem_.from_logits) {
      kernels_.to_logits(tile.data, tile.pitch, block.padded, classes, problem_.bernoulli,
                         problem_.floor);
    }
    b->values = tile.data;
    b->dtype = real_dtype<Real>();
    b->pitch = tile.pitch;
  }

  TemperatureProblem problem_;
  const TemperatureKernels<Real> &kernels_;
  const BlockTransfer<Real> transfer_; // its walk was planned over the problem's views
  const Targets targets_;
  const std::int64_t block_voxels_;
  const TemperatureLayout layout_;
  const Real low_; // the logit of the smallest probability
  std::vector<Real> inverse_temperatures_;
};

} // namespace

void temperature_sums(const std::vector<std::int64_t> &shape, const TemperatureProblem &problem,
                      int n_threads) {
  with_real(problem.values.dtype,
            [&](auto real) { TemperaturePass<decltype(real)>(shape, problem).run(n_threads); });
}

} // namespace fastcal::cpu
