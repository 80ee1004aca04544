// The working memory of one thread, small enough for the caches: pieces of one allocation that the
// thread keeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/block.h"

namespace fastcal::cpu {

class Arena {
public:
  // Calls take_pieces(arena) twice: first to measure the pieces, then to hand them out.
  template <typename TakePieces> static void cut(const TakePieces &take_pieces) {
    Arena arena;
    take_pieces(arena);
    arena.allocate();
    take_pieces(arena);
  }

  // An aligned piece.
  template <typename T> void take(T *&piece, std::int64_t count) {
    piece = base_ == nullptr ? nullptr : reinterpret_cast<T *>(base_ + used_);
    used_ += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
  }

private:
  Arena() = default;

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
  std::int64_t statistics_rows = 1;  // more with regions
};

template <typename Real> struct Scratch {
  // One cache line more than the block, so that the same voxel of neighbouring planes does not fall
  // into the same cache set.
  std::int64_t pitch = 0;

  Real *member = nullptr;         // [classes][pitch]
  Real *state = nullptr;          // [state planes][pitch]
  Real *mean = nullptr;           // [classes][pitch]
  Real *lanes = nullptr;          // [classes][kLaneMultiple]
  Real *confidence = nullptr;     // [label planes][pitch]
  Real *maps[kMapCount] = {};     // [pitch] for each map
  Real *class_sum = nullptr;      // [pitch]; also the totals of accumulate
  std::int32_t *label = nullptr;  // [label planes][pitch]
  std::int32_t *target = nullptr; // [label planes][pitch]
  std::int32_t *keep = nullptr;
  std::int32_t *validity = nullptr;
  std::uint8_t *regions = nullptr;
  std::int32_t *region_keep = nullptr;
  std::int64_t *rows = nullptr; // [statistics rows][statistics words]

  explicit Scratch(const ScratchNeeds &needs) : pitch(needs.block_voxels + kLaneMultiple) {
    Arena::cut([&](Arena &arena) { take_pieces(arena, needs); });
  }

private:
  void take_pieces(Arena &arena, const ScratchNeeds &needs) {
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
