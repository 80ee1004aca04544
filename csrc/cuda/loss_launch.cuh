// Plans a launch of a pass of the losses, and picks the kernel for an element type and a head.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/expects.h"
#include "core/walk.h"
#include "cuda/device.h"
#include "cuda/loss.h"
#include "cuda/loss_tile.cuh"

namespace fastcal::cuda {

inline LossArguments loss_arguments(const LossInput &input, const View *gradient,
                                    std::int64_t words) {
  expects(input.shape.size() >= kPinnedAxes, "logits must have axes of groups and images");
  LossArguments a;
  a.logits = input.logits;
  a.target = input.target;
  std::vector<View *> operands{&a.logits, &a.target};
  if (gradient != nullptr) {
    a.gradient = *gradient;
    operands.push_back(&a.gradient);
  }
  const Walk walk = plan_walk(input.shape, operands, kPinnedAxes);
  const std::int64_t items = input.shape[0] * input.shape[1];
  a.images = std::max<std::int64_t>(input.shape[1], 1);
  a.voxels = walk.voxels / std::max<std::int64_t>(items, 1);
  a.grid.axes = walk.axes - kPinnedAxes;
  a.grid.narrow = a.voxels < (std::int64_t{1} << 31);
  for (int axis = 0; axis < a.grid.axes; ++axis) {
    a.grid.extents[axis] = walk.extents[kPinnedAxes + axis];
    a.grid.dividers[axis] = Divider(walk.extents[kPinnedAxes + axis]);
  }
  a.pieces = pieces_of(items, a.voxels, kTileVoxels, words);
  a.classes = static_cast<std::int32_t>(input.classes);
  a.first_label = input.classes == 1 ? 1 : 0;
  a.labels = std::max<std::int64_t>(input.classes, 2);
  a.has_ignore_index = input.reading.has_ignore_index;
  a.ignore_index = input.reading.ignore_index;
  return a;
}

using LossKernel = void (*)(const LossArguments);

// Launches one warp per piece.
inline Error launch_pieces(LossKernel kernel, const LossArguments &a, std::size_t shared_bytes,
                           const Place &place) {
  const std::int64_t blocks = (a.pieces.all() + kPieceWarps - 1) / kPieceWarps;
  expects(blocks < kMaxGrid, "images must be fewer than 2^31");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kPieceWarps * kWarpLanes);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(place.stream);
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, a));
  return {};
}

// Kernels::template of<Element, kSoftmax>() for the type of the logits and the head.
template <typename Kernels> LossKernel choose_loss_kernel(Dtype dtype, Activation head) {
  const bool softmax = head == Activation::kSoftmax;
  switch (dtype) {
  case Dtype::kFloat64:
    return softmax ? Kernels::template of<double, true>() : Kernels::template of<double, false>();
  case Dtype::kFloat16:
    return softmax ? Kernels::template of<__half, true>() : Kernels::template of<__half, false>();
  case Dtype::kBFloat16:
    return softmax ? Kernels::template of<__nv_bfloat16, true>()
                   : Kernels::template of<__nv_bfloat16, false>();
  default:
    return softmax ? Kernels::template of<float, true>() : Kernels::template of<float, false>();
  }
}

} // namespace fastcal::cuda
