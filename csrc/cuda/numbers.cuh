// A member's numbers for the voxels of one thread, packed as they were read: they are widened when
// they are used, four voxels at a time, so that half precision takes half the registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/real.cuh"
#include "cuda/vec_load.cuh"

namespace fastcal::cuda {

template <typename Element> union Word {
  static constexpr int kElements = 4 / static_cast<int>(sizeof(Element));
  unsigned bits;
  Element elements[kElements];
};

// The larger ones of two words' numbers. NaN is passed over.
template <typename Element>
__device__ __forceinline__ Word<Element> larger_of(Word<Element> a, Word<Element> b) {
#ifndef FASTCAL_CUDA_SHIM
#if __CUDA_ARCH__ >= 800
  if constexpr (sizeof(Element) == 2) {
    Word<Element> larger;
    if constexpr (std::is_same<Element, __half>::value) {
      asm("max.f16x2 %0, %1, %2;" : "=r"(larger.bits) : "r"(a.bits), "r"(b.bits));
    } else {
      asm("max.bf16x2 %0, %1, %2;" : "=r"(larger.bits) : "r"(a.bits), "r"(b.bits));
    }
    return larger;
  }
#endif
#endif
  Word<Element> larger = a;
#pragma unroll
  for (int i = 0; i < Word<Element>::kElements; ++i) {
    const float first = to_real(a.elements[i]);
    const float second = to_real(b.elements[i]);
    larger.elements[i] = second > first || first != first ? b.elements[i] : a.elements[i];
  }
  return larger;
}

// For float the maximum is an instruction of its own.
template <> __device__ __forceinline__ Word<float> larger_of<float>(Word<float> a, Word<float> b) {
  Word<float> larger;
  larger.elements[0] = fmaxf(a.elements[0], b.elements[0]);
  return larger;
}

template <typename Element, int kC, int kV> struct Numbers {
  using Packed = Word<Element>;
  static constexpr int kWords = kV / Packed::kElements;

  Packed words[kC][kWords];

  __device__ __forceinline__ void set(int k, int v, Element element) {
    words[k][v / Packed::kElements].elements[v % Packed::kElements] = element;
  }

  // Reads the neighbours of a class, 16 bytes of them or 8.
  template <typename Read> __device__ __forceinline__ void set_neighbours(int k, const Read &read) {
    using Bits = typename Packet<kWords * 4>::Type;
    union {
      Bits bits;
      Packed words[kWords];
    } packet;
    packet.bits = read(Bits{});
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      words[k][w] = packet.words[w];
    }
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int k = 0; k < kC; ++k) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        words[k][w].bits = 0;
      }
    }
  }

  // Widens the kPart voxels from `first` on, and finds their largest logits. NaN is passed over
  // here and shows in the exponentials.
  template <int kPart>
  __device__ __forceinline__ void widen(int first, float (&z)[kC][kPart],
                                        float (&top)[kPart]) const {
    constexpr int kEach = Packed::kElements;
#pragma unroll
    for (int v = 0; v < kPart; v += kEach) {
      const int w = (first + v) / kEach;
      Packed most = words[0][w];
#pragma unroll
      for (int k = 1; k < kC; ++k) {
        most = larger_of<Element>(most, words[k][w]);
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        top[v + i] = to_real(most.elements[i]);
#pragma unroll
        for (int k = 0; k < kC; ++k) {
          z[k][v + i] = to_real(words[k][w].elements[i]);
        }
      }
    }
  }
};

} // namespace fastcal::cuda
