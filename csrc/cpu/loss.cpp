#include "cpu/loss.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <type_traits>

#include "core/expects.h"
#include "cpu/isa.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastcal::cpu {

namespace {

constexpr int kPinnedAxes = 2;                 // groups and items
constexpr std::int64_t kPieceBlocks = 16;      // blocks of one partial sum
constexpr std::int64_t kLaneRows = 12;         // of class_sums_kernel.inl
constexpr std::int64_t kCachedBytes = 8 << 20; // gradients beyond it are stored past the caches

// Asks for large pages where a large result will lie: freshly mapped, it costs three times the pass
// in faults of 4 KB pages.
void expect_large_pages(const std::vector<std::int64_t> &shape, std::int64_t classes,
                        const View &view) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kPage = std::uintptr_t{1} << 21;
  std::int64_t last = (classes - 1) * view.class_stride;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    last += (shape[axis] - 1) * view.strides[axis];
  }
  const auto begin = reinterpret_cast<std::uintptr_t>(view.data);
  const auto end = begin + static_cast<std::uintptr_t>((last + 1) * size_of(view.dtype));
  const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  if (last > 0 && end > first + kPage) {
    // A wish: without it the pass is only slower.
    (void)madvise(reinterpret_cast<void *>(first), (end - first) / kPage * kPage, MADV_HUGEPAGE);
  }
#else
  (void)shape;
  (void)classes;
  (void)view;
#endif
}

template <typename Function> void with_real(Dtype dtype, const Function &function) {
  if (dtype == Dtype::kFloat64) {
    function(double{});
  } else {
    function(float{});
  }
}

template <typename Real> const LossKernels<Real> &loss_kernels(const Isa &isa) {
  if constexpr (std::is_same_v<Real, float>) {
    return isa.losses->f32;
  } else {
    return isa.losses->f64;
  }
}

template <typename Real> const MapsKernels<Real> &transfer_kernels(const Isa &isa) {
  if constexpr (std::is_same_v<Real, float>) {
    return isa.maps->f32;
  } else {
    return isa.maps->f64;
  }
}

// Working memory of one thread for one block.
template <typename Real> struct LossScratch {
  std::int64_t pitch = 0;
  Real *logits = nullptr;        // [classes][pitch]
  Real *gradient = nullptr;      // [classes][pitch]
  Real *probabilities = nullptr; // [classes][pitch]
  Real *lanes = nullptr;         // [kLaneRows][classes][kLaneMultiple]
  std::int32_t *target = nullptr;
  Real *off = nullptr; // [pitch] as the following
  Real *share = nullptr;
  Real *growth = nullptr;
  std::int32_t *cell = nullptr;

  LossScratch(std::int64_t block_voxels, std::int64_t classes)
      : pitch(block_voxels + kLaneMultiple) {
    Arena arena;
    cut(arena, classes);
    arena.allocate();
    cut(arena, classes);
  }

private:
  void cut(Arena &arena, std::int64_t classes) {
    arena.take(logits, classes * pitch);
    arena.take(gradient, classes * pitch);
    arena.take(probabilities, classes * pitch);
    arena.take(lanes, kLaneRows * classes * kLaneMultiple);
    arena.take(target, pitch);
    arena.take(off, pitch);
    arena.take(share, pitch);
    arena.take(growth, pitch);
    arena.take(cell, pitch);
  }
};

// Goes over the blocks of every item.
template <typename Real> class LossPass {
public:
  LossPass(const LossInput &input, const View *gradient)
      : isa_(current_isa()), kernels_(loss_kernels<Real>(isa_)),
        transfers_(transfer_kernels<Real>(isa_)), input_(input), logits_(input.logits),
        target_(input.target), gradient_(gradient == nullptr ? View{} : *gradient),
        block_voxels_(block_voxels_for(input.classes)) {
    std::vector<View *> operands{&logits_, &target_};
    if (gradient != nullptr) {
      expect_large_pages(input.shape, input.classes, gradient_);
      operands.push_back(&gradient_);
    }
    walk_ = plan_walk(input.shape, operands, kPinnedAxes);
    items_ = input.shape[0] * input.shape[1];
    item_voxels_ = walk_.voxels / std::max<std::int64_t>(items_, 1);
    past_caches_ =
        walk_.voxels * input.classes * static_cast<std::int64_t>(sizeof(Real)) > kCachedBytes;
  }

  // Calls kernel(block, partial) for the blocks, and adds the `words` partial sums of each piece
  // to the item's.
  template <typename Kernel>
  void sum(std::int64_t words, double *sums, int n_threads, const Kernel &kernel) {
    std::fill_n(sums, items_ * words, 0.0);
    std::vector<double> partial(static_cast<std::size_t>(pieces() * words));
    std::atomic<std::int64_t> bad{0};
    std::atomic<std::int64_t> bad_sum{0};
    parallel_for(pieces(), n_threads, [&](std::int64_t piece) {
      std::int64_t wrong[2] = {};
      double *to = partial.data() + piece * words;
      each_block(piece, wrong,
                 [&](const Block &, const LogitBlock<Real> &logits, LossScratch<Real> &scratch) {
                   kernel(logits, scratch, to);
                 });
      bad += wrong[0];
      bad_sum += wrong[1];
    });
    refuse(bad, bad_sum);
    for (std::int64_t piece = 0; piece < pieces(); ++piece) {
      double *to = sums + piece / item_pieces() * words;
      for (std::int64_t w = 0; w < words; ++w) {
        to[w] += partial[static_cast<std::size_t>(piece * words + w)];
      }
    }
  }

  // Calls kernel(block, factors of the item, gradient, pitch of the gradient) for the blocks.
  template <typename Kernel>
  void differentiate(std::int64_t words, const double *factors, int n_threads,
                     const Kernel &kernel) {
    const std::vector<Real> own(factors, factors + items_ * words);
    parallel_for(pieces(), n_threads, [&](std::int64_t piece) {
      std::int64_t wrong[2] = {};
      const Real *from = own.data() + piece / item_pieces() * words;
      each_block(
          piece, wrong,
          [&](const Block &block, const LogitBlock<Real> &logits, LossScratch<Real> &scratch) {
            kernel(logits, scratch, from);
            store(block, scratch.gradient, logits.tile_pitch);
          });
      if (past_caches_) {
        isa_.maps->fence();
      }
    });
  }

private:
  // Voxels a block: logits and gradient of it stay in the first-level cache.
  static std::int64_t block_voxels_for(std::int64_t classes) {
    constexpr std::int64_t kElements = 4096;
    return std::clamp(kElements / std::max<std::int64_t>(classes, 1) / 64 * 64, std::int64_t{64},
                      kMaxBlockVoxels);
  }

  std::int64_t piece_voxels() const { return kPieceBlocks * block_voxels_; }
  std::int64_t item_pieces() const {
    return std::max<std::int64_t>((item_voxels_ + piece_voxels() - 1) / piece_voxels(), 1);
  }
  std::int64_t pieces() const { return items_ * item_pieces(); }

  template <typename Function>
  void each_block(std::int64_t piece, std::int64_t *wrong, const Function &function) {
    LossScratch<Real> scratch(block_voxels_, input_.classes);
    Block block;
    const std::int64_t item = piece / item_pieces();
    const std::int64_t first = piece % item_pieces() * piece_voxels();
    const std::int64_t end = std::min(item_voxels_, first + piece_voxels());
    for (std::int64_t voxel = first; voxel < end; voxel += block_voxels_) {
      block.place(walk_, item * item_voxels_ + voxel, std::min(block_voxels_, end - voxel));
      function(block, open(block, scratch, wrong), scratch);
    }
  }

  LogitBlock<Real> open(const Block &block, LossScratch<Real> &scratch, std::int64_t *wrong) {
    read_target(block, scratch, wrong);
    LogitBlock<Real> b{};
    b.tile_pitch = scratch.pitch;
    b.voxels = block.padded;
    b.classes = input_.classes;
    b.target = scratch.target;
    b.first_label = input_.classes == 1 ? 1 : 0;
    b.head = input_.reading.head;
    b.lanes = scratch.lanes;
    if (block.is_direct(walk_, logits_, real_dtype())) {
      const Run run = run_of(walk_, logits_, block.segments.front(), input_.classes);
      b.logits = static_cast<const Real *>(run.data);
      b.pitch = run.class_stride;
      return b;
    }
    for (const Segment &segment : block.segments) {
      transfers_.load(run_of(walk_, logits_, segment, input_.classes),
                      scratch.logits + segment.first, scratch.pitch);
    }
    for (std::int64_t c = 0; c < input_.classes; ++c) {
      Real *plane = scratch.logits + c * scratch.pitch;
      std::fill(plane + block.voxels, plane + block.padded, Real{0});
    }
    b.logits = scratch.logits;
    b.pitch = scratch.pitch;
    return b;
  }

  static Dtype real_dtype() {
    return std::is_same_v<Real, float> ? Dtype::kFloat32 : Dtype::kFloat64;
  }

  void read_target(const Block &block, LossScratch<Real> &scratch, std::int64_t *wrong) {
    LabelBlock labels{};
    labels.has_ignore_index = input_.reading.has_ignore_index;
    labels.ignore_index = input_.reading.ignore_index;
    labels.num_classes = std::max<std::int64_t>(input_.classes, 2);
    labels.wrong = wrong;
    for (const Segment &segment : block.segments) {
      labels.target = run_of(walk_, target_, segment, 1);
      labels.labels = scratch.target + segment.first;
      isa_.losses->load_labels(labels);
    }
    std::fill(scratch.target + block.voxels, scratch.target + block.padded, -1);
  }

  void store(const Block &block, const Real *tile, std::int64_t pitch) {
    for (const Segment &segment : block.segments) {
      const Run run = run_of(walk_, gradient_, segment, input_.classes);
      if constexpr (std::is_same_v<Real, float>) {
        if (gradient_.dtype != Dtype::kFloat32) {
          isa_.losses->store_halves(run, tile + segment.first, pitch);
          continue;
        }
      }
      transfers_.store(run, tile + segment.first, pitch, past_caches_);
    }
  }

  void refuse(std::int64_t bad, std::int64_t bad_sum) const {
    if (bad == 0) {
      return;
    }
    const std::string which = bad == 1 ? "the value " + std::to_string(bad_sum)
                                       : std::to_string(bad) + " voxels that are no class";
    const std::int64_t classes = std::max<std::int64_t>(input_.classes, 2);
    throw std::invalid_argument("target: got " + which + ", expected 0 to " +
                                std::to_string(classes - 1) + " or the ignore_index");
  }

  const Isa &isa_;
  const LossKernels<Real> &kernels_;
  const MapsKernels<Real> &transfers_;
  const LossInput &input_;
  View logits_;
  View target_;
  View gradient_;
  const std::int64_t block_voxels_;
  Walk walk_;
  std::int64_t items_ = 0;
  std::int64_t item_voxels_ = 0;
  bool past_caches_ = false;

public:
  const LossKernels<Real> &kernels() const { return kernels_; }
};

template <typename Real>
BinBlock<Real> bin_block(const LogitBlock<Real> &block, const Bins &bins, const void *thresholds,
                         const LossScratch<Real> &scratch) {
  return {block,
          bins,
          static_cast<const Real *>(thresholds),
          scratch.probabilities,
          scratch.off,
          scratch.share,
          scratch.growth,
          scratch.cell};
}

} // namespace

void class_sums(const LossInput &input, const SumsWanted &wanted, double *sums, int n_threads) {
  with_real(input.logits.dtype, [&](auto real) {
    using Real = decltype(real);
    LossPass<Real> pass(input, nullptr);
    pass.sum(sum::kRows * input.classes, sums, n_threads,
             [&](const LogitBlock<Real> &block, LossScratch<Real> &, double *to) {
               pass.kernels().class_sums({block, wanted, to});
             });
  });
}

void class_gradient(const LossInput &input, const SumsWanted &wanted, const double *factors,
                    const View &gradient, int n_threads) {
  with_real(input.logits.dtype, [&](auto real) {
    using Real = decltype(real);
    LossPass<Real> pass(input, &gradient);
    pass.differentiate(
        sum::kRows * input.classes, factors, n_threads,
        [&](const LogitBlock<Real> &block, LossScratch<Real> &scratch, const Real *from) {
          pass.kernels().class_gradient({block, wanted, from, scratch.gradient});
        });
  });
}

void bin_gaps(const LossInput &input, const Bins &bins, const void *thresholds, double *sums,
              int n_threads) {
  with_real(input.logits.dtype, [&](auto real) {
    using Real = decltype(real);
    LossPass<Real> pass(input, nullptr);
    pass.sum(bins.words() * input.classes, sums, n_threads,
             [&](const LogitBlock<Real> &block, LossScratch<Real> &scratch, double *to) {
               pass.kernels().bin_gaps(bin_block(block, bins, thresholds, scratch), to);
             });
  });
}

void bin_gradient(const LossInput &input, const Bins &bins, const void *thresholds,
                  const double *factors, const View &gradient, int n_threads) {
  with_real(input.logits.dtype, [&](auto real) {
    using Real = decltype(real);
    LossPass<Real> pass(input, &gradient);
    pass.differentiate(
        bins.words() * input.classes, factors, n_threads,
        [&](const LogitBlock<Real> &block, LossScratch<Real> &scratch, const Real *from) {
          pass.kernels().bin_gradient(bin_block(block, bins, thresholds, scratch), from,
                                      scratch.gradient);
        });
  });
}

} // namespace fastcal::cpu
