#include "cpu/temperature.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cpu/isa.h"
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
    Arena arena;
    cut(arena, problem);
    arena.allocate();
    cut(arena, problem);
  }

private:
  void cut(Arena &arena, const TemperatureProblem &problem) {
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
      : problem_(problem), isa_(current_isa()), block_voxels_(block_voxels_for(problem.classes)) {
    std::vector<View *> operands{&problem_.values, &problem_.target};
    if (problem_.mask.data != nullptr) {
      operands.push_back(&problem_.mask);
    }
    walk_ = plan_walk(shape, operands, 0);
    layout_.parameters = problem.per_class ? problem.classes : 1;
    for (std::int64_t k = 0; k < layout_.parameters; ++k) {
      inverse_temperatures_.push_back(static_cast<Real>(problem.inverse_temperatures[k]));
    }
  }

  // Each chunk has a row of sums of its own; how many there are depends on the voxels alone.
  void run(int n_threads) {
    constexpr std::int64_t kMostChunks = 128;
    const std::int64_t blocks = (walk_.voxels + block_voxels_ - 1) / block_voxels_;
    const std::int64_t chunk = (blocks + kMostChunks - 1) / kMostChunks * block_voxels_;
    const std::int64_t chunks = chunk == 0 ? 0 : (walk_.voxels + chunk - 1) / chunk;
    std::vector<double> sums(static_cast<std::size_t>(chunks * layout_.words()));
    std::vector<std::int64_t> counts(static_cast<std::size_t>(chunks * temperature_count::kWords));
    parallel_for(chunks, n_threads, [&](std::int64_t c) {
      add_chunk(c * chunk, std::min(walk_.voxels, (c + 1) * chunk),
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
  static constexpr Dtype kReal = std::is_same_v<Real, float> ? Dtype::kFloat32 : Dtype::kFloat64;

  const TemperatureKernels<Real> &kernels() const {
    if constexpr (std::is_same_v<Real, float>) {
      return isa_.temperature->f32;
    } else {
      return isa_.temperature->f64;
    }
  }

  const MapsKernels<Real> &transfer() const {
    if constexpr (std::is_same_v<Real, float>) {
      return isa_.maps->f32;
    } else {
      return isa_.maps->f64;
    }
  }

  void add_chunk(std::int64_t first, std::int64_t end, std::int64_t *counts, double *sums) const {
    const Tiles<Real> tiles(block_voxels_, problem_);
    Block block;
    for (std::int64_t voxel = first; voxel < end; voxel += block_voxels_) {
      block.place(walk_, voxel, std::min(block_voxels_, end - voxel));
      add_block(block, tiles, counts, sums);
    }
  }

  void add_block(const Block &block, const Tiles<Real> &tiles, std::int64_t *counts,
                 double *sums) const {
    read_target(block, tiles, counts);
    TemperatureBlock<Real> b{};
    read_values(block, tiles, &b);
    b.voxels = block.padded;
    b.classes = problem_.classes;
    b.bernoulli = problem_.bernoulli;
    b.multilabel = problem_.multilabel;
    b.per_class = problem_.per_class;
    b.low = static_cast<Real>(std::log(problem_.floor.tiny));
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
    kernels().add(b);
  }

  // Where the block's values lie: in the operand's own memory, or in a tile.
  void read_values(const Block &block, const Tiles<Real> &tiles, TemperatureBlock<Real> *b) const {
    const View &view = problem_.values;
    const bool as_they_are = problem_.from_logits && block.is_direct(walk_, view, view.dtype);
    if (as_they_are && (view.dtype == kReal || !(problem_.bernoulli || problem_.per_class))) {
      b->values = run_of(walk_, view, block.segments.front(), problem_.classes).data;
      b->dtype = view.dtype;
      b->pitch = view.class_stride;
      b->prefetch = true;
      return;
    }
    for (const Segment &segment : block.segments) {
      transfer().load(run_of(walk_, view, segment, problem_.classes), tiles.values + segment.first,
                      tiles.pitch);
    }
    for (std::int64_t k = 0; k < problem_.classes; ++k) {
      std::fill(tiles.values + k * tiles.pitch + block.voxels,
                tiles.values + k * tiles.pitch + block.padded, Real{0});
    }
    if (!problem_.from_logits) {
      kernels().to_logits(tiles.values, tiles.pitch, block.padded, problem_.classes,
                          problem_.bernoulli, problem_.floor);
    }
    b->values = tiles.values;
    b->dtype = kReal;
    b->pitch = tiles.pitch;
  }

  void read_target(const Block &block, const Tiles<Real> &tiles, std::int64_t *counts) const {
    std::int64_t row[word::kHeader] = {};
    TargetBlock t{};
    t.multilabel = problem_.multilabel;
    t.has_ignore_index = problem_.has_ignore_index;
    t.ignore_index = problem_.ignore_index;
    t.num_classes = problem_.multilabel ? 2 : problem_.classes;
    t.pitch = tiles.pitch;
    t.row = row;
    t.prefetch = block.segments.size() == 1;
    for (const Segment &segment : block.segments) {
      t.target = run_of(walk_, problem_.target, segment,
                        problem_.multilabel ? problem_.classes : std::int64_t{1});
      t.mask = problem_.mask.data == nullptr ? Run{} : run_of(walk_, problem_.mask, segment, 1);
      t.classes = tiles.target + segment.first;
      t.keep = tiles.keep + segment.first;
      isa_.counts->load_target(t);
    }
    std::fill(tiles.keep + block.voxels, tiles.keep + block.padded, 0);
    counts[temperature_count::kBadTarget] += row[word::kBadTarget];
  }

  TemperatureProblem problem_;
  const Isa &isa_;
  const std::int64_t block_voxels_;
  Walk walk_;
  TemperatureLayout layout_;
  std::vector<Real> inverse_temperatures_;
};

} // namespace

void temperature_sums(const std::vector<std::int64_t> &shape, const TemperatureProblem &problem,
                      int n_threads) {
  if (problem.values.dtype == Dtype::kFloat64) {
    TemperaturePass<double>(shape, problem).run(n_threads);
  } else {
    TemperaturePass<float>(shape, problem).run(n_threads);
  }
}

} // namespace fastcal::cpu
