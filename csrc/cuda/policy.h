// Every tuning number of the CUDA backend.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastcal::cuda {

constexpr int kWarpLanes = 32;
constexpr int kMaxWarps = 4; // of a block; fewer where their tiles would not fit shared memory

// Members and thresholds that travel in the parameters of a launch; more go through a table that
// launches fill. Together with everything else they stay below the 4 KB every driver takes.
constexpr int kInlineMembers = 48;
constexpr int kInlineThresholds = 32;

// Histograms up to this size live in shared memory, larger ones are counted in device memory.
constexpr std::int64_t kSharedBinBytes = 32 << 10;

// Shared memory a block may use without asking the driver for more.
constexpr std::int64_t kDefaultSharedBytes = 48 << 10;

// Values counted into one bin of one block: 2^22 values of at most 2^40 stay below 2^63.
constexpr std::int64_t kValuesABlock = std::int64_t{1} << 22;

constexpr std::int64_t kMaxGrid = (std::int64_t{1} << 31) - 1;
constexpr std::int64_t kMaxGridRows = 65535;

// Class counts whose softmax is held in registers: a count takes the next tier, the classes it
// lacks hold minus infinity. Small counts, where a lacking class weighs most, have their own.
constexpr int kTiers[] = {2, 3, 4, 6, 8, 12, 16, 32, 64};
constexpr int kTierCount = sizeof(kTiers) / sizeof(kTiers[0]);
constexpr int kLastTier = 64;
// Beyond the last tier the classes of a voxel are dealt over up to this many lanes.
constexpr int kMaxSplit = 16;

// Tiers without registers of their own (0) read a member class by class.
constexpr int kMaxVectorClasses = 32;

// Voxels a thread reads at once: 16 bytes while the sums and the member's numbers of all its voxels
// fit about 128 registers, less beyond.
constexpr int voxels_a_thread(int element_bytes, int tier) {
  const int widest = 16 / element_bytes;
  const int limit = tier <= 4 ? 8 : tier <= 16 ? 4 : tier <= 32 ? 2 : 1;
  return widest < limit ? widest : limit;
}

// Blocks of kMaxWarps that a multiprocessor must hold: caps the registers of a thread at 65,536 /
// 128 of it. Left to itself the compiler prefers a spill to a block less.
constexpr int blocks_a_processor(int tier) {
  return tier == 0 ? 4 : tier <= 4 ? 5 : tier <= 8 ? 4 : tier <= 12 ? 3 : 2;
}

} // namespace fastcal::cuda
