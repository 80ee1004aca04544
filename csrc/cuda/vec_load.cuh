// Reads members and integers and writes maps, 16 bytes at a time where that is possible.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/real.cuh"

namespace fastcal::cuda {

template <int kBytes> struct Packet;
template <> struct Packet<2> {
  using Type = unsigned short;
};
template <> struct Packet<4> {
  using Type = unsigned int;
};
template <> struct Packet<8> {
  using Type = uint2;
};
template <> struct Packet<16> {
  using Type = uint4;
};

// By value, so that the two kinds of memory are read by instructions of their own.
__device__ __forceinline__ MemberEntry member_of(const PassArguments &a, int m) {
  if (a.member_table == nullptr) {
    return a.members[m];
  }
  return a.member_table[m];
}

// Turns packed numbers into the accumulation type.
template <typename Element, int kCount>
__device__ __forceinline__ void
unpack(typename Packet<kCount *static_cast<int>(sizeof(Element))>::Type bits,
       Real<Element> (&values)[kCount]) {
  union {
    decltype(bits) packed;
    Element elements[kCount];
  } packet;
  packet.packed = bits;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = to_real(packet.elements[i]);
  }
}

// Reads kCount neighbours in one access. The address must be a multiple of their size together.
template <typename Element, int kCount>
__device__ __forceinline__ void load_run(const Element *from, Real<Element> (&values)[kCount]) {
  using Bits = typename Packet<kCount *static_cast<int>(sizeof(Element))>::Type;
  unpack<Element, kCount>(__ldcs(reinterpret_cast<const Bits *>(from)), values);
}

template <typename Element> __device__ __forceinline__ Real<Element> load_one(const Element *from) {
  return to_real(*from);
}

__device__ __forceinline__ std::int64_t load_integer(const View &view, std::int64_t offset) {
  switch (view.dtype) {
  case Dtype::kInt8:
    return static_cast<const std::int8_t *>(view.data)[offset];
  case Dtype::kInt16:
    return static_cast<const std::int16_t *>(view.data)[offset];
  case Dtype::kInt32:
    return static_cast<const std::int32_t *>(view.data)[offset];
  case Dtype::kInt64:
  case Dtype::kUInt64:
    return static_cast<const std::int64_t *>(view.data)[offset];
  case Dtype::kUInt16:
    return static_cast<const std::uint16_t *>(view.data)[offset];
  case Dtype::kUInt32:
    return static_cast<const std::uint32_t *>(view.data)[offset];
  default:
    return static_cast<const std::uint8_t *>(view.data)[offset]; // uint8 and bool
  }
}

// Writes a label to an integer of any type; -1 sets every bit.
__device__ __forceinline__ void store_label(const View &view, std::int64_t offset, int label) {
  switch (view.dtype) {
  case Dtype::kInt64:
  case Dtype::kUInt64:
    static_cast<std::int64_t *>(view.data)[offset] = label;
    return;
  case Dtype::kInt32:
  case Dtype::kUInt32:
    static_cast<std::int32_t *>(view.data)[offset] = label;
    return;
  case Dtype::kInt16:
  case Dtype::kUInt16:
    static_cast<std::int16_t *>(view.data)[offset] = static_cast<std::int16_t>(label);
    return;
  default:
    static_cast<std::int8_t *>(view.data)[offset] = static_cast<std::int8_t>(label);
  }
}

// Reads a thread's neighbours in a plane of a tile. The address must be a multiple of their size.
template <int kCount, typename Real>
__device__ __forceinline__ void read_plane(const Real *plane, Real (&values)[kCount]) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(Real));
  constexpr int kStep = (kBytes < 16 ? kBytes : 16) / static_cast<int>(sizeof(Real));
  using Bits = typename Packet<(kBytes < 16 ? kBytes : 16)>::Type;
#pragma unroll
  for (int i = 0; i < kCount; i += kStep) {
    union {
      Bits bits;
      Real reals[kStep];
    } packet;
    packet.bits = *reinterpret_cast<const Bits *>(plane + i);
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      values[i + k] = packet.reals[k];
    }
  }
}

template <int kCount, typename Real>
__device__ __forceinline__ void write_plane(Real *plane, const Real (&values)[kCount]) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(Real));
  constexpr int kStep = (kBytes < 16 ? kBytes : 16) / static_cast<int>(sizeof(Real));
  using Bits = typename Packet<(kBytes < 16 ? kBytes : 16)>::Type;
#pragma unroll
  for (int i = 0; i < kCount; i += kStep) {
    union {
      Bits bits;
      Real reals[kStep];
    } packet;
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      packet.reals[k] = values[i + k];
    }
    *reinterpret_cast<Bits *>(plane + i) = packet.bits;
  }
}

template <typename Real>
__device__ __forceinline__ void store_real(const View &view, std::int64_t offset, Real value) {
  static_cast<Real *>(view.data)[offset] = value;
}

} // namespace fastcal::cuda
