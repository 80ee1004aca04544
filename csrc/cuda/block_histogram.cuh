// Exact counts of a block: 32-bit words in shared memory, which are added to the result once, at
// the end.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/real.cuh"

namespace fastcal::cuda {

// rint(v 2^40), half to even, of the terms of a proper score.
__device__ __forceinline__ std::int64_t fixed_point(float v) {
  return __float2ll_rn(v * static_cast<float>(kFractionScale));
}
__device__ __forceinline__ std::int64_t fixed_point(double v) {
  return __double2ll_rn(v * kFractionScale);
}

// The same for |v| < 4, in single precision only. Adding 1.5 * 2^23 leaves the rounded integer in
// the low bits: first that of v 2^20, then that of the remainder times 2^20. Both steps are exact.
__device__ __forceinline__ std::int64_t fixed_probability(float v) {
  constexpr float kMagic = 12582912.0F;
  constexpr int kMagicBits = 0x4b400000;
  constexpr float kHalfScale = 1048576.0F; // 2^20
  const float scaled = v * kHalfScale;
  const float high = scaled + kMagic;
  const float rest = scaled - (high - kMagic);
  const float low = rest * kHalfScale + kMagic;
  return static_cast<std::int64_t>(__float_as_int(high) - kMagicBits) * (std::int64_t{1} << 20) +
         (__float_as_int(low) - kMagicBits);
}
__device__ __forceinline__ std::int64_t fixed_probability(double v) { return fixed_point(v); }

__device__ __forceinline__ unsigned warp_sum(unsigned value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_add_sync(0xffffffffU, value);
#else
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffU, value, distance);
  }
  return value;
#endif
}

// The sum of numbers in [0, 2^58), in pieces of 27 bits, whose sums over a warp fit 32 bits.
__device__ __forceinline__ std::int64_t warp_sum(std::int64_t value) {
  constexpr int kPiece = 27;
  constexpr std::int64_t kMask = (std::int64_t{1} << kPiece) - 1;
  const std::int64_t low = warp_sum(static_cast<unsigned>(value & kMask));
  const std::int64_t middle = warp_sum(static_cast<unsigned>((value >> kPiece) & kMask));
  const std::int64_t high = warp_sum(static_cast<unsigned>(value >> (2 * kPiece)));
  return low + (middle << kPiece) + (high << (2 * kPiece));
}

// A 64-bit word in shared memory is two of 32 bits, because a 64-bit atomic on shared memory is a
// loop on recent chips. Whenever the low word wraps, exactly one of the concurrent additions sees
// it.
__device__ __forceinline__ void add_shared(unsigned *low_high, std::uint64_t value) {
  const unsigned low = static_cast<unsigned>(value);
  unsigned high = static_cast<unsigned>(value >> 32);
  const unsigned before = atomicAdd(low_high, low);
  high += before + low < before ? 1U : 0U;
  if (high != 0) {
    atomicAdd(low_high + 1, high);
  }
}

__device__ __forceinline__ std::uint64_t read_shared(const unsigned *low_high) {
  return static_cast<std::uint64_t>(low_high[1]) << 32 | low_high[0];
}

__device__ __forceinline__ void add_global(std::int64_t *word, std::int64_t value) {
  if (value != 0) {
    atomicAdd(reinterpret_cast<unsigned long long *>(word), static_cast<unsigned long long>(value));
  }
}

// Adds to {hi, lo} of a sum of fixed-point numbers. The carry is left to the end of the call.
__device__ __forceinline__ void add_global_real(std::int64_t *hi_lo, std::int64_t sum) {
  add_global(hi_lo, sum >> kFractionBits);
  add_global(hi_lo + 1, sum & kFractionMask);
}

// One histogram of the block: {misses, hits, low, high} per bin in shared memory, where one
// addition counts a value, or the statistics themselves where all histograms together would not fit
// there.
struct Histogram {
  unsigned *shared;
  std::int64_t *global;

  __device__ __forceinline__ void add(int cell, unsigned count, unsigned hits,
                                      std::int64_t sum) const {
    if (shared != nullptr) {
      unsigned *bin = shared + kBinWords * cell;
      if (count != hits) {
        atomicAdd(bin, count - hits);
      }
      if (hits != 0) {
        atomicAdd(bin + 1, hits);
      }
      add_shared(bin + 2, static_cast<std::uint64_t>(sum));
    } else {
      std::int64_t *bin = global + kBinWords * cell;
      add_global(bin, count);
      add_global(bin + 1, hits);
      add_global_real(bin + 2, sum);
    }
  }
};

template <typename Real> struct Thresholds {
  const Real *values;
  int count;
  bool left_closed;
  bool even; // each edge is less than a quarter of a bin from where equal bins have it

  // The edges of the outer bins.
  __device__ __forceinline__ Real first() const { return count > 0 ? values[0] : infinity<Real>(); }
  __device__ __forceinline__ Real last() const {
    return count > 0 ? values[count - 1] : infinity<Real>();
  }

  __device__ __forceinline__ bool above(Real p, Real threshold) const {
    return left_closed ? p >= threshold : p > threshold;
  }
  // How many thresholds p is above.
  __device__ __forceinline__ int cell_of(Real p) const { return even ? near(p) : search(p); }

private:
  // Among equal bins the right one is at most one away from a product.
  __device__ __forceinline__ int near(Real p) const {
    int cell = static_cast<int>(multiply_exact(p, static_cast<Real>(count + 1)));
    cell = cell < 0 ? 0 : cell > count ? count : cell;
    if (cell < count && above(p, values[cell])) {
      return cell + 1;
    }
    return cell > 0 && !above(p, values[cell - 1]) ? cell - 1 : cell;
  }

  __device__ __forceinline__ int search(Real p) const {
    int low = 0;
    int high = count;
#pragma unroll 1
    while (low < high) {
      const int middle = (low + high) / 2;
      const bool beyond = above(p, values[middle]);
      low = beyond ? middle + 1 : low;
      high = beyond ? high : middle;
    }
    return low;
  }
};

// Nearly all voxels of a real volume lie in the first or the last bin. A thread counts those in
// registers, the warp adds them up, and one lane adds the result to shared memory. The others are
// added one by one.
template <typename Real> class OuterBins {
public:
  __device__ __forceinline__ void add(const Thresholds<Real> &bins, const Histogram &histogram,
                                      Real p, bool hit) {
    const std::int64_t q = fixed_probability(p);
    const unsigned one = 1U + (hit ? 1U << kHitShift : 0U);
    if (bins.above(p, bins.last())) {
      last_ += one;
      last_sum_ += q;
    } else if (!bins.above(p, bins.first())) {
      first_ += one;
      first_sum_ += q;
    } else {
      histogram.add(bins.cell_of(p), 1U, hit ? 1U : 0U, q);
    }
  }

  // To be called by all lanes of a warp together.
  __device__ __forceinline__ void flush(const Thresholds<Real> &bins, const Histogram &histogram,
                                        int lane) {
#pragma unroll 1
    for (int outer = 0; outer < 2; ++outer) {
      const unsigned counts = warp_sum(outer == 0 ? first_ : last_);
      const std::int64_t sum = warp_sum(outer == 0 ? first_sum_ : last_sum_);
      if (lane == 0 && counts != 0) {
        histogram.add(outer == 0 ? 0 : bins.count, counts & ((1U << kHitShift) - 1),
                      counts >> kHitShift, sum);
      }
    }
  }

private:
  // The count and the hits of at most 2^16 - 1 values share one word.
  static constexpr int kHitShift = 16;

  unsigned first_ = 0;
  unsigned last_ = 0;
  std::int64_t first_sum_ = 0;
  std::int64_t last_sum_ = 0;
};

} // namespace fastcal::cuda
