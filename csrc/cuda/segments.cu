#include "cuda/segments.h"

#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#include "core/expects.h"
#include "core/walk.h"
#include "cuda/device.h"
#include "cuda/segment_tally.cuh"

namespace fastcal::cuda {

namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kBlocksPerProcessor = 8; // 2048 threads, which all fit at once

struct SegmentArguments {
  Grid grid;
  std::int64_t item_voxels = 0;
  std::uint32_t chunks = 1; // blocks that share an item and class
  SegmentProblem problem;
};

static_assert(sizeof(SegmentArguments) <= 4096, "beyond the parameter space of older drivers");

enum class Standing : int { kNothing, kOther, kSegment };

// Whether a voxel belongs to the segment of class c, only counts, or is left out. A bad label is
// counted once, by the first class.
__device__ __forceinline__ Standing standing_of(const SegmentArguments &a, std::int64_t voxel,
                                                int c, SegmentTally &tally) {
  const SegmentProblem &p = a.problem;
  const std::int64_t offset = offset_of(a.grid, p.label.strides, voxel);
  const std::int64_t limit = p.multilabel ? 2 : p.classes;
  const int planes = p.multilabel ? static_cast<int>(p.classes) : 1;
  bool bad = false;
  bool member = false;
#pragma unroll 1
  for (int k = 0; k < planes; ++k) {
    const std::int64_t value = load_integer(p.label, offset + k * p.label.class_stride);
    if (p.has_ignore_index && value == p.ignore_index) {
      return Standing::kNothing;
    }
    bad = bad || value < 0 || value >= limit;
    member = member || (p.multilabel ? k == c && value == 1 : value == c);
  }
  if (bad) {
    tally.count(segment_word::kBadLabel, c == 0);
    return Standing::kNothing;
  }
  return member ? Standing::kSegment : Standing::kOther;
}

template <typename Real>
__device__ __forceinline__ Real load_map(const SegmentArguments &a, const View &view,
                                         std::int64_t voxel) {
  return static_cast<const Real *>(view.data)[offset_of(a.grid, view.strides, voxel)];
}

// Adds a voxel of the segment with probability p.
template <typename Real>
__device__ __forceinline__ void add_member(const SegmentArguments &a, std::int64_t voxel, int c,
                                           Real p, SegmentTally &tally) {
  const SegmentProblem &problem = a.problem;
  tally.count(segment_word::kVoxels);
  tally.add(segment_word::kConfidence, p);
  if (problem.binary) {
    tally.add(segment_word::kBinaryEntropy, binary_entropy_exact(p, problem.clip));
  }
  Real h = 0;
  if (problem.entropy.data != nullptr) {
    h = tally.add_entropy(segment_word::kEntropy, segment_word::kBadEntropy,
                          load_map<Real>(a, problem.entropy, voxel));
  }
  if (problem.information.data != nullptr) {
    tally.add_entropy(segment_word::kInformation, segment_word::kBadInformation,
                      load_map<Real>(a, problem.information, voxel));
  }
  const View &interior = problem.interior;
  if (interior.data != nullptr) {
    const std::int64_t plane = problem.multilabel ? c * interior.class_stride : 0;
    if (load_integer(interior, offset_of(a.grid, interior.strides, voxel) + plane) != 0) {
      tally.count(segment_word::kInterior);
      tally.add(segment_word::kInteriorEntropy, h);
    }
  }
}

template <typename Element>
__device__ __forceinline__ void add_voxel(const SegmentArguments &a, std::int64_t voxel, int c,
                                          SegmentTally &tally) {
  using RealType = Real<Element>;
  const SegmentProblem &problem = a.problem;
  const Standing standing = standing_of(a, voxel, c, tally);
  if (standing == Standing::kNothing) {
    return;
  }
  if (problem.votes.data != nullptr) {
    const std::int64_t offset =
        offset_of(a.grid, problem.votes.strides, voxel) + c * problem.votes.class_stride;
    const auto votes =
        static_cast<std::int64_t>(static_cast<const RealType *>(problem.votes.data)[offset]);
    tally.votes += votes;
    tally.vote_pairs += votes * (votes - 1);
  }
  const std::int64_t offset =
      offset_of(a.grid, problem.mean.strides, voxel) + c * problem.mean.class_stride;
  const RealType raw = to_real(static_cast<const Element *>(problem.mean.data)[offset]);
  const bool in_range =
      raw > static_cast<RealType>(-kOutOfRange) && raw < static_cast<RealType>(1.0 + kOutOfRange);
  if (!in_range) { // NaN too
    tally.count(segment_word::kBadMean);
    return;
  }
  const RealType p = raw > RealType{0} ? raw : RealType{0};
  tally.add(segment_word::kSoft, p);
  if (standing == Standing::kSegment) {
    add_member<RealType>(a, voxel, c, p, tally);
  }
}

// Blocks (x, y): x is a chunk of an item, and y walks over the classes.
template <typename Element>
__global__ void __launch_bounds__(kThreads)
    add_segments(const __grid_constant__ SegmentArguments a) {
  // What is alive during the whole loop has 32 bits, since more would leave the registers. The host
  // makes sure that they suffice.
  const std::uint32_t item = blockIdx.x / a.chunks;
  const std::uint32_t first = blockIdx.x % a.chunks * kThreads + threadIdx.x;
  for (std::int64_t c = blockIdx.y; c < a.problem.classes; c += gridDim.y) {
    SegmentTally tally;
    for (std::int64_t v = first; v < a.item_voxels; v += std::int64_t{a.chunks} * kThreads) {
      add_voxel<Element>(a, item * a.item_voxels + v, static_cast<int>(c), tally);
    }
    std::int64_t *row = a.problem.sums + (item * a.problem.classes + c) * segment_word::kWords;
    tally.flush(row, static_cast<int>(first % kWarpLanes));
  }
}

__global__ void carry_segments(std::int64_t *sums, std::int64_t rows) {
  constexpr std::int64_t kReals = segment_word::kReals;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * kReals;
       i += step) {
    std::int64_t *hi_lo =
        sums + i / kReals * segment_word::kWords + segment_word::kSoft + 2 * (i % kReals);
    hi_lo[0] += hi_lo[1] >> kFractionBits;
    hi_lo[1] &= kFractionMask;
  }
}

Error launch(const SegmentArguments &a, const cudaLaunchConfig_t &config) {
  switch (a.problem.mean.dtype) {
  case Dtype::kFloat64:
    FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, add_segments<double>, a));
    return {};
  case Dtype::kFloat16:
    FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, add_segments<__half>, a));
    return {};
  case Dtype::kBFloat16:
    FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, add_segments<__nv_bfloat16>, a));
    return {};
  default:
    FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, add_segments<float>, a));
    return {};
  }
}

SegmentArguments arguments_of(const std::vector<std::int64_t> &shape,
                              const SegmentProblem &problem) {
  SegmentArguments a;
  a.problem = problem;
  std::vector<View *> operands;
  for (View *view : {&a.problem.mean, &a.problem.label, &a.problem.entropy, &a.problem.information,
                     &a.problem.votes, &a.problem.interior}) {
    if (view->data != nullptr) {
      operands.push_back(view);
    }
  }
  const Walk walk = plan_walk(shape, operands, 1);
  a.grid.axes = walk.axes;
  a.grid.narrow = walk.voxels < (std::int64_t{1} << 31);
  for (int axis = 0; axis < walk.axes; ++axis) {
    a.grid.extents[axis] = walk.extents[axis];
    a.grid.dividers[axis] = Divider(walk.extents[axis]);
  }
  a.item_voxels = walk.voxels / std::max<std::int64_t>(shape.front(), 1);
  return a;
}

} // namespace

Error segment_sums(const std::vector<std::int64_t> &shape, const SegmentProblem &problem,
                   const Place &place) {
  expects(!shape.empty(), "mean must have a batch axis");
  SegmentArguments a = arguments_of(shape, problem);
  if (a.item_voxels == 0) {
    return {};
  }
  DeviceGuard guard;
  if (const Error error = guard.enter(place.device)) {
    return error;
  }
  std::int64_t count = 0;
  if (const Error error = processors(place.device, &count)) {
    return error;
  }
  const std::int64_t items = shape.front();
  const std::int64_t rows = items * problem.classes;
  const std::int64_t most = (a.item_voxels + kThreads - 1) / kThreads;
  const std::int64_t chunks = std::clamp<std::int64_t>(count * kBlocksPerProcessor / rows, 1, most);
  expects(items * chunks < (std::int64_t{1} << 31), "batch items must be fewer than 2^31");
  expects(chunks * kThreads < kMaxIndex, "a device must have fewer than 2^20 multiprocessors");
  a.chunks = static_cast<std::uint32_t>(chunks);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(items * chunks),
                        static_cast<unsigned>(std::min(problem.classes, kMaxGridRows)));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(place.stream);
  if (const Error error = launch(a, config)) {
    return error;
  }
  config.gridDim = dim3(static_cast<unsigned>(std::min<std::int64_t>(rows, 1024)));
  FASTCAL_CUDA_TRY(cudaLaunchKernelEx(&config, carry_segments, problem.sums, rows));
  return {};
}

} // namespace fastcal::cuda
