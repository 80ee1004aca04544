// What a thread adds up over the segment of one class, and how the threads of a grid add up.
#pragma once

#include <cstdint>

#include "cuda/block_histogram.cuh"
#include "cuda/exact_log.cuh"
#include "cuda/segments.h"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

// -(p ln p + q ln q) with q = 1 - p and the logarithm of the statistics.
template <typename Real> __device__ __forceinline__ Real binary_entropy_exact(Real p, bool clip) {
  if (clip) {
    p = p < static_cast<Real>(kClipLow) ? static_cast<Real>(kClippedLow) : p;
    p = p > static_cast<Real>(kClipHigh) ? static_cast<Real>(kClippedHigh) : p;
  }
  const Real tiny = smallest_normal<Real>();
  const Real rest = add_exact(Real{1}, -p);
  const Real q = rest > Real{0} ? rest : Real{0};
  const Real h = -multiply_exact(p, log_exact_steps(p > tiny ? p : tiny));
  return add_exact(h, -multiply_exact(q, log_exact_steps(q > tiny ? q : tiny)));
}

struct SegmentTally {
  unsigned counts[segment_word::kSoft] = {}; // the words before the real sums, but for the votes
  std::int64_t votes = 0;
  std::int64_t vote_pairs = 0;
  std::int64_t reals[segment_word::kReals] = {}; // in fixed point, in the order of the words

  __device__ __forceinline__ void count(int word, bool yes = true) { counts[word] += yes ? 1 : 0; }

  // Adds to a real sum, given its first word.
  template <typename Real> __device__ __forceinline__ void add(int word, Real value) {
    reals[(word - segment_word::kSoft) / 2] += fixed_point(value);
  }

  // The value of a map that is an entropy, which is added; else 0, and it is counted as bad.
  template <typename Real>
  __device__ __forceinline__ Real add_entropy(int word, int bad, Real value) {
    const bool good =
        value > static_cast<Real>(kLeastEntropy) && value < static_cast<Real>(kMostEntropy);
    count(bad, !good);
    add(word, good ? value : Real{0});
    return good ? value : Real{0};
  }

  // Adds what all lanes have to the words of the row. The low words may exceed their 40 bits until
  // the carry.
  __device__ __forceinline__ void flush(std::int64_t *row, int lane) const {
#pragma unroll
    for (int word = 0; word < segment_word::kSoft; ++word) {
      if (word != segment_word::kVotes && word != segment_word::kVotePairs) {
        add_to(row + word, warp_sum(counts[word]), lane);
      }
    }
    add_to(row + segment_word::kVotes, sum_over_warp(votes), lane);
    add_to(row + segment_word::kVotePairs, sum_over_warp(vote_pairs), lane);
#pragma unroll
    for (int k = 0; k < segment_word::kReals; ++k) {
      const std::int64_t sum = sum_over_warp(reals[k]);
      std::int64_t *hi_lo = row + segment_word::kSoft + 2 * k;
      add_to(hi_lo, sum >> kFractionBits, lane);
      add_to(hi_lo + 1, sum & kFractionMask, lane);
    }
  }

private:
  __device__ __forceinline__ static std::int64_t sum_over_warp(std::int64_t value) {
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(0xffffffffU, value, distance);
    }
    return value;
  }

  __device__ __forceinline__ static void add_to(std::int64_t *word, std::int64_t value, int lane) {
    if (lane == 0 && value != 0) {
      atomicAdd(reinterpret_cast<unsigned long long *>(word),
                static_cast<unsigned long long>(value));
    }
  }
};

} // namespace fastcal::cuda
