// Reads the targets of a block once, as labels in 32-bit lanes. Included only by the files of one
// instruction set.
#pragma once

#include "cpu/loss_kernels.h"

namespace fastcal::cpu::FASTCAL_ISA {

constexpr std::int32_t kWrong = -2;

template <typename Element>
static inline std::int32_t read_labels(const LabelBlock &b, const Element *__restrict from,
                                       std::int64_t stride) {
  std::int32_t *__restrict labels = b.labels;
  const auto limit = static_cast<std::uint64_t>(b.num_classes);
  std::int32_t lowest = 0;
  for (std::int64_t v = 0; v < b.target.voxels; ++v) {
    const auto value = static_cast<std::int64_t>(from[v * stride]);
    const bool known = static_cast<std::uint64_t>(value) < limit;
    const bool ignored = b.has_ignore_index && value == b.ignore_index;
    const std::int32_t label = ignored ? -1 : (known ? static_cast<std::int32_t>(value) : kWrong);
    labels[v] = label;
    lowest = label < lowest ? label : lowest;
  }
  return lowest;
}

template <typename Element> static void load_labels_of(const LabelBlock &b) {
  const auto *from = static_cast<const Element *>(b.target.data);
  const std::int64_t stride = b.target.voxel_stride;
  const std::int32_t lowest =
      stride == 1 ? read_labels<Element>(b, from, 1) : read_labels<Element>(b, from, stride);
  for (std::int64_t v = 0; lowest == kWrong && v < b.target.voxels; ++v) {
    if (b.labels[v] == kWrong) {
      b.labels[v] = -1;
      b.wrong[0] += 1;
      // Wraps around, because targets may be of any size.
      b.wrong[1] = static_cast<std::int64_t>(static_cast<std::uint64_t>(b.wrong[1]) +
                                             static_cast<std::uint64_t>(from[v * stride]));
    }
  }
}

static void load_labels(const LabelBlock &b) {
  switch (b.target.dtype) {
  case Dtype::kInt8:
    return load_labels_of<std::int8_t>(b);
  case Dtype::kInt16:
    return load_labels_of<std::int16_t>(b);
  case Dtype::kInt32:
    return load_labels_of<std::int32_t>(b);
  case Dtype::kInt64:
    return load_labels_of<std::int64_t>(b);
  case Dtype::kUInt16:
    return load_labels_of<std::uint16_t>(b);
  case Dtype::kUInt32:
    return load_labels_of<std::uint32_t>(b);
  case Dtype::kUInt64:
    return load_labels_of<std::uint64_t>(b);
  default:
    return load_labels_of<std::uint8_t>(b); // uint8 and bool
  }
}

} // namespace fastcal::cpu::FASTCAL_ISA
