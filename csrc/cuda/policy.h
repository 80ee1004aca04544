// Every tuning number of the CUDA backend.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastcal::cuda {

constexpr int kWarpLanes = 32;
constexpr int kMaxWarps = 4; // per block; fewer where their tiles do not fit shared memory

// Members and thresholds up to these numbers travel in the parameters of a launch; more go through
// a table in device memory. With everything else they stay below the 4 KB that every driver
// accepts.
constexpr int kInlineMembers = 48;
constexpr int kInlineThresholds = 32;

// Histograms up to this size are in shared memory; larger ones are counted in device memory.
constexpr std::int64_t kSharedBinBytes = 32 << 10;

// Bin thresholds up to this size are copied to shared memory; larger tables are read where they
// are.
constexpr std::int64_t kSharedThresholdBytes = 16 << 10;

// Where a tile does not fit shared memory, this many blocks per multiprocessor get device memory
// for their tiles.
constexpr std::int64_t kWorkspaceBlocksPerProcessor = 2;

// Shared memory a block may use without asking the driver for more.
constexpr std::int64_t kDefaultSharedBytes = 48 << 10;

// The most values that are counted into one bin of one block: 2^22 values of at most 2^40 stay
// below 2^63.
constexpr std::int64_t kValuesPerBlock = std::int64_t{1} << 22;

// The limit of tiles and of groups, whose indices have 32 bits.
constexpr std::int64_t kMaxIndex = std::int64_t{1} << 31;

constexpr std::int64_t kMaxGrid = (std::int64_t{1} << 31) - 1;
constexpr std::int64_t kMaxGridRows = 65535;

// Class counts beyond those of plain passes whose softmax is held in registers. Other counts take
// the next larger tier, and the surplus classes hold minus infinity.
constexpr int kTiers[] = {12, 16, 32, 52};
constexpr int kTierCount = sizeof(kTiers) / sizeof(kTiers[0]);
constexpr int kLastTier = 52;
// Beyond the last tier the classes of a voxel are dealt out to up to this many lanes. With more
// lanes per voxel, a warp would read too few neighbouring voxels to use whole sectors of memory.
constexpr int kMaxSplit = 4;

// Tier 0 holds no classes in registers and reads a member class by class. With more classes than
// this, the tile that 16-byte loads per lane need would leave too few warps per multiprocessor.
constexpr int kMaxVectorClasses = 16;

// Voxels that a thread reads at once: 16 bytes of them as long as their sums and the member's
// numbers leave registers for several blocks per multiprocessor, fewer beyond that.
constexpr int voxels_per_thread(int element_bytes, int tier) {
  const int widest = 16 / element_bytes;
  const int limit = tier <= 16 ? 2 : 1;
  return widest < limit ? widest : limit;
}

// A plain pass takes the softmax of the logits of up to this many classes, and keeps all that
// follows from a voxel in registers. Each class count has a kernel of its own.
constexpr int kMaxPlainClasses = 8;

// The fewest classes that a thread of a tier has, for which it need not look.
constexpr int least_classes(int tier, bool split) {
  int least = split ? kLastTier : kMaxPlainClasses + 1;
  for (const int smaller : kTiers) {
    least = !split && smaller < tier ? smaller + 1 : least;
  }
  for (int classes = kLastTier + 1; split && classes <= kMaxSplit * kLastTier; ++classes) {
    int parts = 2;
    while (classes > parts * kLastTier) {
      parts *= 2;
    }
    const int left = classes - (parts - 1) * ((classes + parts - 1) / parts); // of the last lane
    least = left < least ? left : least;
  }
  return least;
}
template <int kTier, bool kSplit> constexpr int kLeastClasses = least_classes(kTier, kSplit);

// Voxels of a thread in a plain pass.
constexpr int plain_voxels(int element_bytes, int classes) {
  const int widest = 16 / element_bytes;
  const int limit = classes <= 4 ? 8 : 4;
  return widest < limit ? widest : limit;
}

// Blocks of kMaxWarps that a multiprocessor must be able to hold, as many as there are registers
// for without a spill. Their rings have 64 KB on their way at least, whatever their number.
// The numbers fit compute capability 9.0; elsewhere a block less keeps clear of spills.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900
constexpr int kSpareBlocks = 0;
#else
constexpr int kSpareBlocks = 1;
#endif
constexpr int plain_blocks(int element_bytes, int classes, bool full) {
  const bool single = element_bytes == 4;
  const int blocks = single && classes <= 4 && !full ? 4 : single && classes > 7 && full ? 2 : 3;
  return blocks - kSpareBlocks;
}

// Up to this many classes their terms of an entropy are added as they are.
constexpr int kFewClasses = 16;

// How the members of a plain pass reach the registers. Only a device can tell which is the fastest;
// `--variants` of the benchmark times all of them.
enum class Delivery : int {
  kLoads = 0,      // straight from device memory; a warp takes one tile
  kRing = 1,       // copied ahead into shared memory; a warp takes one tile
  kPersistent = 2, // copied ahead, and a warp goes on to the next tile with its copies on their way
};
constexpr Delivery kDelivery = Delivery::kPersistent;

// What a warp has on its way, at least, where copies run ahead. Sixteen warps have 96 KB then; an
// H100 needs about 64 KB per multiprocessor for its bandwidth times its latency.
constexpr int kRingBytes = 6 << 10;
constexpr int kMaxStages = 6;

constexpr int row_bytes_of(int element_bytes, int voxels) {
  return kWarpLanes * voxels * element_bytes;
}

// A stage of the ring has room for the aligned 16 bytes around a row of each class.
constexpr int stage_bytes(int element_bytes, int classes, int voxels) {
  return classes * (row_bytes_of(element_bytes, voxels) + 16);
}

constexpr int ring_stages(int element_bytes, int classes, int voxels) {
  const int bytes = classes * row_bytes_of(element_bytes, voxels);
  const int wanted = (kRingBytes + bytes - 1) / bytes;
  return wanted < 2 ? 2 : wanted > kMaxStages ? kMaxStages : wanted;
}

// Members whose votes a packed counter of 8 bits holds.
constexpr int kPackedVotes = 255;

// Blocks of kMaxWarps that a multiprocessor must be able to hold, which caps the registers of a
// thread. Without the cap the compiler would rather spill than give up a block. A thread needs two
// registers per voxel and class (the sum and the member's number) and at most kOtherRegisters for
// the rest of the kernel; recent architectures keep more of the arguments in registers.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 1000
constexpr int kOtherRegisters = 80;
#elif __CUDA_ARCH__ < 1200
constexpr int kOtherRegisters = 90;
#else
constexpr int kOtherRegisters = 108; // their memory needs fewer warps to be kept busy
#endif
constexpr int blocks_per_processor(int tier, int voxels) {
  const int wanted = 512 / (2 * tier * voxels + kOtherRegisters);
  return tier == 0 ? 4 : wanted < 2 ? 2 : wanted > 5 ? 5 : wanted;
}

} // namespace fastcal::cuda
