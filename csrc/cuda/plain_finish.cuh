// The second stage of a plain pass: maps straight from the registers that hold the sums. Its steps
// are those of finish.cuh, so that both give the same bits. Each map is written as soon as it is
// known, which frees its registers for the next.
#pragma once

#include <cstdint>

#include "cuda/finish.cuh"
#include "cuda/plain_sums.cuh"

namespace fastcal::cuda {

template <int kV>
__device__ __forceinline__ void write_valid(const PassArguments &a, Map map, int plane,
                                            const PlainMemory &memory, const Voxels<kV> &voxels,
                                            const float (&values)[kV], const bool (&valid)[kV]) {
  float out[kV];
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    out[v] = valid[v] ? values[v] : quiet_nan<float>();
  }
  write_map(a, map, plane, memory, voxels, out);
}

// Turns the sums into means. A voxel is valid where they are finite.
template <int kC, int kV>
__device__ __forceinline__ void take_means(const PassArguments &a, float (&sum)[kC][kV],
                                           bool (&valid)[kV]) {
  const auto scale = static_cast<float>(a.scale);
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    float class_sum = 0.0F;
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      sum[k][v] = multiply_exact(sum[k][v], scale);
      class_sum = add_exact(class_sum, sum[k][v]);
    }
    valid[v] = is_finite(class_sum); // no term is negative
  }
}

// Divides the means by their sum over the classes.
template <int kC, int kV> __device__ __forceinline__ void normalise_means(float (&p)[kC][kV]) {
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    float total = 0.0F;
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      total = add_exact(total, p[k][v]);
    }
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      p[k][v] = divide_exact(p[k][v], total) + (total - total);
    }
  }
}

// The largest number of votes for one class.
template <int kC, int kV>
__device__ __forceinline__ void most_votes(const PassArguments &a, const float *spilled,
                                           const Voxels<kV> &voxels,
                                           const PlainSums<kC, kV, true> &sums, float (&most)[kV]) {
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    most[v] = 0.0F;
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      auto votes = static_cast<float>(sums.votes_of(k, v));
      if (a.n_members > kPackedVotes) {
        votes += spilled[k * Voxels<kV>::kWidth + voxels.slot + v * voxels.step];
      }
      most[v] = larger(most[v], votes);
    }
  }
}

// Writes the maps of how far the members are apart. `sums.sum` holds the means.
template <int kC, int kV>
__device__ __forceinline__ void
write_spread(const PassArguments &a, const PlainMemory &memory, const Voxels<kV> &voxels,
             const PlainSums<kC, kV, true> &sums, const bool (&valid)[kV]) {
  float values[kV];
  if (wants(a, Map::kVariance)) {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      float squares = 0.0F;
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        squares = fused(sums.sum[k][v], sums.sum[k][v], squares);
      }
      values[v] = not_negative(sums.square[v] * static_cast<float>(a.scale) - squares) /
                  static_cast<float>(kC);
    }
    write_valid(a, Map::kVariance, 0, memory, voxels, values, valid);
  }
  if (wants(a, Map::kDisagreement)) {
    most_votes(a, memory.at<float>(memory.plan.votes), voxels, sums, values);
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      values[v] = 1.0F - values[v] * static_cast<float>(a.inverse_members);
    }
    write_valid(a, Map::kDisagreement, 0, memory, voxels, values, valid);
  }
}

// Writes the maps of entropies. `sums.sum` holds the means.
template <int kC, int kV, bool kFull>
__device__ __forceinline__ void
write_entropies(const PassArguments &a, const PlainMemory &memory, const Voxels<kV> &voxels,
                const PlainSums<kC, kV, kFull> &sums, const bool (&valid)[kV]) {
  const auto scale = static_cast<float>(a.scale);
  float values[kV];
  if (kFull && wants(a, Map::kExpectedEntropy)) {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      values[v] = not_negative(sums.entropy[v] * scale);
    }
    write_valid(a, Map::kExpectedEntropy, 0, memory, voxels, values, valid);
  }
  if (!wants_entropy(a)) {
    return;
  }
  float entropy[kV];
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    entropy[v] = 0.0F;
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      entropy[v] = add_p_log_p(sums.sum[k][v], entropy[v]);
    }
    entropy[v] = entropy_of_sum(entropy[v]);
  }
  if (kFull && wants(a, Map::kMutualInformation)) {
    // Of a single member it is 0, not the rounding error of two equal entropies.
    const bool several = a.inverse_members < 1.0;
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      values[v] = several ? not_negative(entropy[v] - sums.entropy[v] * scale) : 0.0F;
    }
    write_valid(a, Map::kMutualInformation, 0, memory, voxels, values, valid);
  }
  if (wants(a, Map::kEntropy)) {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      values[v] = not_negative(entropy[v]);
    }
    write_valid(a, Map::kEntropy, 0, memory, voxels, values, valid);
  }
}

// Writes the maps of the classes, and gives the labels, -1 where a voxel is not valid.
template <int kC, int kV>
__device__ __forceinline__ void write_classes(const PassArguments &a, const PlainMemory &memory,
                                              const Voxels<kV> &voxels, const float (&p)[kC][kV],
                                              const bool (&valid)[kV], int (&label)[kV]) {
  if (wants(a, Map::kMean)) {
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      write_valid(a, Map::kMean, k, memory, voxels, p[k], valid);
    }
  }
  if (!(wants(a, Map::kLabel) || wants(a, Map::kConfidence) || a.counting.wanted)) {
    return;
  }
  float confidence[kV];
#pragma unroll
  for (int v = 0; v < kV; ++v) {
    label[v] = 0;
    confidence[v] = 0.0F;
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      const bool more = p[k][v] > confidence[v];
      label[v] = more ? k : label[v];
      confidence[v] = more ? p[k][v] : confidence[v];
    }
    label[v] = valid[v] ? label[v] : -1;
  }
  if (wants(a, Map::kConfidence)) {
    write_valid(a, Map::kConfidence, 0, memory, voxels, confidence, valid);
  }
  if (wants(a, Map::kLabel)) {
    write_map(a, Map::kLabel, 0, memory, voxels, label);
  }
}

// Writes all maps. The means are left in the place of the sums.
template <int kC, int kV, bool kFull>
__device__ __forceinline__ void finish_plain(const PassArguments &a, const PlainMemory &memory,
                                             const Voxels<kV> &voxels,
                                             PlainSums<kC, kV, kFull> &sums, int (&label)[kV]) {
  bool valid[kV];
  take_means(a, sums.sum, valid);
  if constexpr (kFull) {
    write_spread(a, memory, voxels, sums, valid);
    if (a.normalise) {
      normalise_means(sums.sum);
    }
  }
  write_entropies(a, memory, voxels, sums, valid);
  write_classes(a, memory, voxels, sums.sum, valid, label);
  if (a.plain.any_staged) {
    scatter_maps(a, memory, voxels);
  }
}

} // namespace fastcal::cuda
