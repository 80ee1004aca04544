// The cache-resident working memory of one thread, cut from one allocation that the thread keeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/block.h"

namespace fastcal::cpu {

class Arena {
public:
  // Hands out aligned pieces; called twice, first to measure and then to cut.
  template <typename T> void take(T *&piece, std::int64_t count) {
    piece = base_ == nullptr ? nullptr : reinterpret_cast<T *>(base_ + used_);
    used_ += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
  }

  void allocate() {
    thread_local std::unique_ptr<char[]> memory;
    thread_local std::int64_t capacity = 0;
    if (used_ + 64 > capacity) {
      capacity = used_ + 64;
      memory.reset(new char[static_cast<std::size_t>(capacity)]);
    }
    const auto address = reinterpret_cast<std::uintptr_t>(memory.get());
    base_ = memory.get() + (64 - address % 64) % 64;
    used_ = 0;
  }

private:
  char *base_ = nullptr;
  std::int64_t used_ = 0;
};

// Which pieces a pass needs.
struct ScratchNeeds {
  std::int64_t block_voxels = 0;
  std::int64_t classes = 0;
  std::int64_t state_planes = 0;
  std::int64_t label_planes = 1;     // classes when multilabel
  std::int64_t statistics_words = 0; // of one row
  std::int64_t statistics_rows = 1;  // more than one with regions
};

template <typename Real> struct Scratch {
  // A cache line more than the block, so that equal voxels of neighbouring planes do not share a
  // cache set.
  std::int64_t pitch = 0;

  Real *member = nullptr;         // [classes][pitch]
  Real *state = nullptr;          // [state planes][pitch]
  Real *mean = nullptr;           // [classes][pitch]
  Real *lanes = nullptr;          // [classes][kLaneMultiple]
  Real *confidence = nullptr;     // [label planes][pitch]
  Real *maps[kMapCount] = {};     // [pitch] each
  Real *class_sum = nullptr;      // [pitch]; also the totals of accumulate
  std::int32_t *label = nullptr;  // [label planes][pitch]
  std::int32_t *target = nullptr; // [label planes][pitch]
  std::int32_t *keep = nullptr;
  std::int32_t *validity = nullptr;
  std::uint8_t *regions = nullptr;
  std::int32_t *region_keep = nullptr;
  std::int64_t *rows = nullptr; // [statistics rows][statistics words]

  explicit Scratch(const ScratchNeeds &needs) : pitch(needs.block_voxels + kLaneMultiple) {
    Arena arena;
    cut(arena, needs);
    arena.allocate();
    cut(arena, needs);
  }

private:
  void cut(Arena &arena, const ScratchNeeds &needs) {
    arena.take(member, needs.classes * pitch);
    arena.take(state, needs.state_planes * pitch);
    arena.take(mean, needs.classes * pitch);
    arena.take(lanes, needs.classes * kLaneMultiple);
    arena.take(confidence, needs.label_planes * pitch);
    for (Real *&map : maps) {
      arena.take(map, pitch);
    }
    arena.take(class_sum, pitch);
    arena.take(label, needs.label_planes * pitch);
    arena.take(target, needs.label_planes * pitch);
    arena.take(keep, pitch);
    arena.take(validity, pitch);
    arena.take(regions, pitch);
    arena.take(region_keep, pitch);
    arena.take(rows, needs.statistics_words * needs.statistics_rows);
  }
};

} // namespace fastcal::cpu
