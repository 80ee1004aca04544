// How the passes reach the numbers of a block of voxels: in the operand's own memory where the
// kernels can work there, otherwise through tiles in the cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/block.h"
#include "cpu/isa.h"

namespace fastcal::cpu {

template <typename Real> constexpr Dtype real_dtype() {
  return std::is_same_v<Real, float> ? Dtype::kFloat32 : Dtype::kFloat64;
}

// Calls `function` with a zero of the type that numbers of `dtype` are accumulated in.
template <typename Function> void with_real(Dtype dtype, const Function &function) {
  if (dtype == Dtype::kFloat64) {
    function(double{});
  } else {
    function(float{});
  }
}

// The kernels of a stage for one accumulation type.
template <typename Real, typename Stage> const auto &kernels_of(const Stage &stage) {
  if constexpr (std::is_same_v<Real, float>) {
    return stage.f32;
  } else {
    return stage.f64;
  }
}

// Rows of voxels, in a tile or in an operand's own memory.
template <typename Real> struct Planes {
  Real *data = nullptr;
  std::int64_t pitch = 0;

  Real *plane(std::int64_t k) const { return data + k * pitch; }
};

// Where the targets of a pass lie, and which values are classes.
struct Targets {
  View target;
  View mask; // data is null without a mask
  std::int64_t planes = 1;
  std::int64_t num_classes = 0;
  bool multilabel = false;
  bool has_ignore_index = false;
  std::int64_t ignore_index = 0;
};

struct TargetTiles {
  std::int32_t *classes = nullptr; // [planes][pitch]
  std::int32_t *keep = nullptr;    // -1 counts, 0 does not
  std::int64_t pitch = 0;
};

// Moves the blocks of one walk between its operands and tiles of Real.
template <typename Real> class BlockTransfer {
public:
  BlockTransfer(const Isa &isa, const Walk &walk)
      : isa_(isa), kernels_(kernels_of<Real>(*isa.maps)), walk_(walk) {}

  const Isa &isa() const { return isa_; }
  const Walk &walk() const { return walk_; }

  // True when the kernels may work on numbers of type `dtype` where the operand has them.
  bool is_direct(const Block &block, const View &view, Dtype dtype) const {
    return block.is_direct(walk_, view, dtype);
  }

  // Where the first voxel of a direct block lies.
  Run direct_run(const Block &block, const View &view, std::int64_t planes) const {
    return run_of(walk_, view, block.segments.front(), planes);
  }

  // The operand's planes of the block. A copy in the tile ends in zeros, where a block is padded.
  Planes<Real> read(const Block &block, const View &view, std::int64_t planes,
                    const Planes<Real> &tile) const {
    if (is_direct(block, view, real_dtype<Real>())) {
      // Operands that are only read are never written through this.
      void *data = const_cast<void *>(direct_run(block, view, planes).data);
      return {static_cast<Real *>(data), view.class_stride};
    }
    return copy(block, view, planes, tile);
  }

  // The same, always as a copy.
  Planes<Real> copy(const Block &block, const View &view, std::int64_t planes,
                    const Planes<Real> &tile) const {
    for (const Segment &segment : block.segments) {
      kernels_.load(run_of(walk_, view, segment, planes), tile.data + segment.first, tile.pitch);
    }
    for (std::int64_t k = 0; k < planes; ++k) {
      std::fill(tile.plane(k) + block.voxels, tile.plane(k) + block.padded, Real{0});
    }
    return tile;
  }

  // From the tile to the operand's memory. After stores past the caches the thread must call
  // fence() before it ends.
  void write(const Block &block, const Planes<const Real> &tile, const View &view,
             std::int64_t planes, bool past_caches) const {
    for (const Segment &segment : block.segments) {
      kernels_.store(run_of(walk_, view, segment, planes), tile.data + segment.first, tile.pitch,
                     past_caches);
    }
  }

  void fence() const { isa_.maps->fence(); }

  // Targets as 32-bit lanes; the padding does not count. Bad targets are counted in `row`.
  void read_targets(const Block &block, const Targets &targets, const TargetTiles &tiles,
                    std::int64_t *row) const {
    TargetBlock t{};
    t.multilabel = targets.multilabel;
    t.has_ignore_index = targets.has_ignore_index;
    t.ignore_index = targets.ignore_index;
    t.num_classes = targets.num_classes;
    t.pitch = tiles.pitch;
    t.row = row;
    t.prefetch = block.segments.size() == 1;
    for (const Segment &segment : block.segments) {
      t.target = run_of(walk_, targets.target, segment, targets.planes);
      t.mask = targets.mask.data == nullptr ? Run{} : run_of(walk_, targets.mask, segment, 1);
      t.classes = tiles.classes + segment.first;
      t.keep = tiles.keep + segment.first;
      isa_.counts->load_target(t);
    }
    std::fill(tiles.keep + block.voxels, tiles.keep + block.padded, 0);
  }

private:
  const Isa &isa_;
  const MapsKernels<Real> &kernels_;
  const Walk walk_;
};

} // namespace fastcal::cpu
