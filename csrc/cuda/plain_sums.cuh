// The running sums of a plain pass, all in registers.
#pragma once

#include <cstdint>

#include "cuda/accumulate_softmax.cuh"
#include "cuda/numbers.cuh"
#include "cuda/plain_voxels.cuh"

namespace fastcal::cuda {

// kFull adds what only some maps need: entropies, squares and votes of the members.
template <int kC, int kV, bool kFull> struct PlainSums {
  static constexpr int kWords = (kC + 3) / 4;

  float sum[kC][kV];
  float entropy[kV];
  float square[kV];
  unsigned votes[kWords][kV]; // four counters of 8 bits each

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      entropy[v] = square[v] = 0.0F;
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        sum[k][v] = 0.0F;
      }
    }
    clear_votes();
  }

  __device__ __forceinline__ void clear_votes() {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        votes[w][v] = 0;
      }
    }
  }

  __device__ __forceinline__ unsigned votes_of(int k, int v) const {
    return votes[k / 4][v] >> (8 * (k % 4)) & 0xffU;
  }

  // Adds one member's numbers, a few voxels at a time.
  template <typename Element>
  __device__ __forceinline__ void add(const PassArguments &a, const MemberEntry &member,
                                      const Numbers<Element, kC, kV> &numbers) {
    constexpr int kPart = kV < 4 ? kV : 4;
#pragma unroll
    for (int first = 0; first < kV; first += kPart) {
      float z[kC][kPart];
      float top[kPart];
      numbers.widen(first, z, top);
      add_part(a, member, first, z, top);
    }
  }

private:
  // Adds a vote for the lowest class whose logit is the largest; none where all are NaN.
  template <int kPart>
  __device__ __forceinline__ void vote(int first, const float (&z)[kC][kPart],
                                       const float (&top)[kPart]) {
#pragma unroll
    for (int v = 0; v < kPart; ++v) {
      unsigned one[kWords] = {};
#pragma unroll
      for (int k = kC - 1; k >= 0; --k) {
        const bool best = z[k][v] == top[v];
        one[k / 4] = best ? 1U << (8 * (k % 4)) : one[k / 4];
        if (k < 4 && kWords > 1) {
          one[kWords - 1] = best ? 0U : one[kWords - 1];
        }
      }
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        votes[w][first + v] += one[w];
      }
    }
  }

  template <int kPart>
  __device__ __forceinline__ void add_part(const PassArguments &a, const MemberEntry &member,
                                           int first, float (&z)[kC][kPart],
                                           const float (&top)[kPart]) {
    const float weight = member.weight_single;
    const float inverse_temperature = member.inverse_temperature_single;
    const float factor = exp_factor(inverse_temperature);
    float total[kPart];
    float moment[kPart];
    if (kFull && a.keeps_votes) {
      vote(first, z, top);
    }
    if (kFull && a.keeps_entropy) {
      exponentiate<kC, kPart, true>(z, top, factor, total, moment);
    } else {
      exponentiate<kC, kPart, false>(z, top, factor, total, moment);
    }
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const int v = first + i;
      const float inverse = reciprocal_approximate(total[i]);
      const float scaled = inverse * weight;
      if (kFull && a.keeps_entropy) {
        const float h = fused(-moment[i] * inverse, inverse_temperature, log_natural(total[i]));
        entropy[v] = fused(h, weight, entropy[v]);
      }
      if (kFull && a.keeps_square) {
        float squares = 0.0F;
#pragma unroll
        for (int k = 0; k < kC; ++k) {
          squares = fused(z[k][i], z[k][i], squares);
        }
        square[v] = fused(squares * inverse, scaled, square[v]);
      }
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        sum[k][v] = fused(z[k][i], scaled, sum[k][v]);
      }
    }
  }
};

// A streamed state as one thread sees it.
template <int kC, int kV> struct PlainState {
  using Sums = PlainSums<kC, kV, true>;

  const PassArguments &a;
  const PlainMemory &memory;
  const Voxels<kV> &voxels;

  __device__ __forceinline__ void load(Sums &sums) const {
    if (!a.wide_state) {
      const int planes = kC + (a.keeps_entropy ? 1 : 0) + (a.keeps_square ? 1 : 0);
#pragma unroll 1
      for (int plane = 0; plane < planes; ++plane) {
        float *const staged = plane_of(plane);
        voxels.visit(a.grid, a.state,
                     [&](int slot, std::int64_t at) { staged[slot] = element(place(plane))[at]; });
      }
    }
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      load_plane(k, sums.sum[k]);
    }
    if (a.keeps_entropy) {
      load_plane(kC, sums.entropy);
    }
    if (a.keeps_square) {
      load_plane(kC + (a.keeps_entropy ? 1 : 0), sums.square);
    }
  }

  // Writes the sums back, and adds the votes to theirs.
  __device__ __forceinline__ void store(const Sums &sums) const {
#pragma unroll
    for (int k = 0; k < kC; ++k) {
      store_plane(k, sums.sum[k]);
    }
    int planes = kC;
    if (a.keeps_entropy) {
      store_plane(planes++, sums.entropy);
    }
    if (a.keeps_square) {
      store_plane(planes++, sums.square);
    }
    if (a.keeps_votes) {
#pragma unroll
      for (int k = 0; k < kC; ++k) {
        float votes[kV] = {};
        if (a.wide_state && voxels.holds(0)) {
          read_plane<kV>(element(a.votes_plane + k) + voxels.first(), votes);
        }
#pragma unroll
        for (int v = 0; v < kV; ++v) {
          votes[v] += static_cast<float>(sums.votes_of(k, v));
        }
        store_plane(planes + k, votes);
      }
    }
    if (a.wide_state) {
      return;
    }
#pragma unroll 1
    for (int plane = 0; plane < planes + (a.keeps_votes ? kC : 0); ++plane) {
      const float *const staged = plane_of(plane);
      voxels.visit(a.grid, a.state, [&](int slot, std::int64_t at) {
        float *const to = element(place(plane)) + at;
        *to = plane < planes ? staged[slot] : *to + staged[slot];
      });
    }
  }

  // The plane of the state for the i-th that is kept.
  __device__ __forceinline__ std::int64_t place(int i) const {
    const int squares = kC + (a.keeps_entropy ? 1 : 0);
    const int votes = squares + (a.keeps_square ? 1 : 0);
    return i < kC        ? i
           : i < squares ? a.entropy_plane
           : i < votes   ? a.square_plane
                         : a.votes_plane + (i - votes);
  }
  __device__ __forceinline__ float *element(std::int64_t plane) const {
    return static_cast<float *>(a.state.data) + plane * a.state.class_stride;
  }
  __device__ __forceinline__ float *plane_of(int i) const {
    return memory.at<float>(memory.plan.state) + i * Voxels<kV>::kWidth;
  }

  __device__ __forceinline__ void load_plane(int i, float (&values)[kV]) const {
    if (!a.wide_state) {
      voxels.fetch(plane_of(i), values);
    } else if (voxels.holds(0)) {
      read_plane<kV>(element(place(i)) + voxels.first(), values);
    }
  }
  __device__ __forceinline__ void store_plane(int i, const float (&values)[kV]) const {
    if (!a.wide_state) {
      voxels.leave(plane_of(i), values);
    } else if (voxels.holds(0)) {
      write_plane<kV>(element(place(i)) + voxels.first(), values);
    }
  }
};

} // namespace fastcal::cuda
