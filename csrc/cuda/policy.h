// Every tuning number of the CUDA backend.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastcal::cuda {

constexpr int kWarpLanes = 32;
constexpr int kMaxWarps = 4; // of a block; fewer where their tiles would not fit shared memory

// Members and thresholds that travel in the parameters of a launch; more go
// through a table that launches fill. Together with everything else they stay
// below the 4 KB every driver takes.
constexpr int kInlineMembers = 48;
constexpr int kInlineThresholds = 32;

// Histograms up to this size live in shared memory, larger ones are counted in
// device memory.
constexpr std::int64_t kSharedBinBytes = 32 << 10;

// Bin thresholds up to this size are copied to shared memory, more are read
// where they are.
constexpr std::int64_t kSharedThresholdBytes = 16 << 10;

// Blocks for which there is device memory where a tile does not fit shared
// memory.
constexpr std::int64_t kWorkspaceBlocksAProcessor = 2;

// Shared memory a block may use without asking the driver for more.
constexpr std::int64_t kDefaultSharedBytes = 48 << 10;

// Values counted into one bin of one block: 2^22 values of at most 2^40 stay
// below 2^63.
constexpr std::int64_t kValuesABlock = std::int64_t{1} << 22;

// Of tiles and of groups: counted in 32 bits.
constexpr std::int64_t kMaxIndex = std::int64_t{1} << 31;

constexpr std::int64_t kMaxGrid = (std::int64_t{1} << 31) - 1;
constexpr std::int64_t kMaxGridRows = 65535;

// Class counts whose softmax is held in registers: a count takes the next tier,
// the classes it lacks hold minus infinity. Small counts, where a lacking class
// weighs most, have their own.
constexpr int kTiers[] = {2, 3, 4, 6, 8, 12, 16, 32, 52};
constexpr int kTierCount = sizeof(kTiers) / sizeof(kTiers[0]);
constexpr int kLastTier = 52;
// Beyond the last tier the classes of a voxel are dealt over up to this many
// lanes; with more, the lanes of a warp would share too few neighbours for
// whole sectors of memory.
constexpr int kMaxSplit = 4;

// Tiers without registers of their own (0) read a member class by class; with
// more classes than this the tile of a 16-byte load a lane would leave too few
// warps a multiprocessor.
constexpr int kMaxVectorClasses = 16;

// Voxels a thread reads at once: 16 bytes while the sums and the member's
// numbers of all its voxels leave room for several blocks a multiprocessor,
// less beyond.
constexpr int voxels_a_thread(int element_bytes, int tier) {
  const int widest = 16 / element_bytes;
  const int limit = tier <= 4 ? 8 : tier <= 8 ? 4 : tier <= 16 ? 2 : 1;
  return widest < limit ? widest : limit;
}

// Blocks of kMaxWarps that a multiprocessor must hold, which caps the registers
// of a thread: left to itself the compiler prefers a spill to a block less. A
// sum and a number a voxel and class, and what the rest of the kernel takes at
// most; recent architectures keep more of the arguments there.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 1000
constexpr int kOtherRegisters = 80;
#elif __CUDA_ARCH__ < 1200
constexpr int kOtherRegisters = 90;
#else
constexpr int kOtherRegisters = 108; // the memory of these needs fewer warps
#endif
constexpr int blocks_a_processor(int tier, int voxels) {
  const int wanted = 512 / (2 * tier * voxels + kOtherRegisters);
  return tier == 0 ? 4 : wanted < 2 ? 2 : wanted > 5 ? 5 : wanted;
}

} // namespace fastcal::cuda
