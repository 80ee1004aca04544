#include "cpu/loss.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/planes.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

#if defined(__linux__)
#if defined(__linux__)
#include <sys/mman.h>
#endif
#endif

namespace fastcal::cpu {

namespace {

constexpr int kPinnedAxes = 2;                 // groups and items
constexpr std::int64_t kPieceBlocks = 16;      // blocks of one partial sum
constexpr std::int64_t kLaneRows = 12;         // as many as class_sums_kernel.inl uses
constexpr std::int64_t kCachedBytes = 8 << 20; // gradients beyond it are stored past the caches

// Asks for large pages where a large result will lie. In freshly mapped memory the faults of 4 KB
// pages take three times as long as the pass.
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
    // A wish: the pass is only slower where it is not granted.
    (void)madvise(reinterpret_cast<void *>(first), (end - first) / kPage * kPage, MADV_HUGEPAGE);
  }
#else
  (void)shape;
  (void)classes;
  (void)view;
#endif
}

// Working memory of one thread for one block.
template <typename Real> struct LossScratch {
  std::int64_t pitch = 0;
  Real *logits = nullptr;        // [classes][pitch]
  Real *gradient = nullptr;      // [classes][pitch]
  Real *probabilities = nullptr; // [classes][pitch]
  Real *lanes = nullptr;         // [kLaneRows][classes][kLaneMultiple]
  std::int32_t *target = nullptr;
  Real *off = nullptr; // [pitch], and so are the following
  Real *share = nullptr;
  Real *growth = nullptr;
  std::int32_t *cell = nullptr;

  LossScratch(std::int64_t block_voxels, std::int64_t classes)
      : pitch(block_voxels + kLaneMultiple) {
    Arena::cut([&](Arena &arena) { take_pieces(arena, classes); });
  }

private:
  void take_pieces(Arena &arena, std::int64_t classes) {
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

// What a pass reads and, where it differentiates, writes.
struct LossViews {
  View logits;
  View target;
  View gradient; // data is null in a pass of sums

  LossViews(const LossInput &input, const View *to)
      : logits(input.logits), target(input.target), gradient(to == nullptr ? View{} : *to) {}

  std::vector<View *> operands() {
    std::vector<View *> all{&logits, &target};
    if (gradient.data != nullptr) {
      all.push_back(&gradient);
    }
    return all;
  }
};

// Goes over the blocks of every item.
template <typename Real> class LossPass {
public:
  // `gradient` is null in a pass of sums. The input must outlive the pass.
  LossPass(const LossInput &input, const View *gradient)
      : input_(input), kernels_(kernels_of<Real>(*current_isa().losses)), views_(input, gradient),
        transfer_(current_isa(), plan_walk(input.shape, views_.operands(), kPinnedAxes)),
        block_voxels_(block_voxels_for(input.classes)), items_(input.shape[0] * input.shape[1]),
        item_voxels_(transfer_.walk().voxels / std::max<std::int64_t>(items_, 1)),
        past_caches_(transfer_.walk().voxels * input.classes *
                         static_cast<std::int64_t>(sizeof(Real)) >
                     kCachedBytes) {
    if (gradient != nullptr) {
      expect_large_pages(input.shape, input.classes, *gradient);
    }
  }

  const LossKernels<Real> &kernels() const { return kernels_; }

  // Calls kernel(block, scratch, partial sums) for every block, and adds the `words` partial sums
  // of each piece to those of its item.
  template <typename Kernel>
  void sum(std::int64_t words, double *sums, int n_threads, const Kernel &kernel) const {
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

  // Calls kernel(block, scratch, factors of its item) for every block, and writes the gradient that
  // it leaves in the scratch.
  template <typename Kernel>
  void differentiate(std::int64_t words, const double *factors, int n_threads,
                     const Kernel &kernel) const {
    const std::vector<Real> own(factors, factors + items_ * words);
    parallel_for(pieces(), n_threads, [&](std::int64_t piece) {
      std::int64_t wrong[2] = {};
      const Real *from = own.data() + piece / item_pieces() * words;
      each_block(
          piece, wrong,
          [&](const Block &block, const LogitBlock<Real> &logits, LossScratch<Real> &scratch) {
            kernel(logits, scratch, from);
            store(block, {scratch.gradient, scratch.pitch});
          });
      if (past_caches_) {
        transfer_.fence();
      }
    });
  }

private:
  std::int64_t piece_voxels() const { return kPieceBlocks * block_voxels_; }
  std::int64_t item_pieces() const {
    return std::max<std::int64_t>((item_voxels_ + piece_voxels() - 1) / piece_voxels(), 1);
  }
  std::int64_t pieces() const { return items_ * item_pieces(); }

  template <typename Function>
  void each_block(std::int64_t piece, std::int64_t *wrong, const Function &function) const {
    LossScratch<Real> scratch(block_voxels_, input_.classes);
    Block block;
    const std::int64_t item = piece / item_pieces();
    const std::int64_t first = piece % item_pieces() * piece_voxels();
    const std::int64_t end = std::min(item_voxels_, first + piece_voxels());
    for (std::int64_t voxel = first; voxel < end; voxel += block_voxels_) {
      block.place(transfer_.walk(), item * item_voxels_ + voxel,
                  std::min(block_voxels_, end - voxel));
      function(block, open(block, scratch, wrong), scratch);
    }
  }

  LogitBlock<Real> open(const Block &block, LossScratch<Real> &scratch, std::int64_t *wrong) const {
    read_labels(block, scratch.target, wrong);
    const Planes<Real> logits =
        transfer_.read(block, views_.logits, input_.classes, {scratch.logits, scratch.pitch});
    LogitBlock<Real> b{};
    b.logits = logits.data;
    b.pitch = logits.pitch;
    b.tile_pitch = scratch.pitch;
    b.voxels = block.padded;
    b.classes = input_.classes;
    b.target = scratch.target;
    b.first_label = input_.classes == 1 ? 1 : 0;
    b.head = input_.reading.head;
    b.lanes = scratch.lanes;
    return b;
  }

  void read_labels(const Block &block, std::int32_t *tile, std::int64_t *wrong) const {
    LabelBlock labels{};
    labels.has_ignore_index = input_.reading.has_ignore_index;
    labels.ignore_index = input_.reading.ignore_index;
    labels.num_classes = std::max<std::int64_t>(input_.classes, 2);
    labels.wrong = wrong;
    for (const Segment &segment : block.segments) {
      labels.target = run_of(transfer_.walk(), views_.target, segment, 1);
      labels.labels = tile + segment.first;
      transfer_.isa().losses->load_labels(labels);
    }
    std::fill(tile + block.voxels, tile + block.padded, -1);
  }

  void store(const Block &block, const Planes<const Real> &tile) const {
    if constexpr (std::is_same_v<Real, float>) {
      if (views_.gradient.dtype != Dtype::kFloat32) {
        for (const Segment &segment : block.segments) {
          transfer_.isa().losses->store_halves(
              run_of(transfer_.walk(), views_.gradient, segment, input_.classes),
              tile.data + segment.first, tile.pitch);
        }
        return;
      }
    }
    transfer_.write(block, tile, views_.gradient, input_.classes, past_caches_);
  }

  void refuse(std::int64_t bad, std::int64_t bad_sum) const {
    if (bad == 0) {
      return;
    }
    const std::int64_t classes = std::max<std::int64_t>(input_.classes, 2);
    const std::string got =
        bad == 1 ? "the value " + std::to_string(bad_sum) : std::to_string(bad) + " other values";
    throw std::invalid_argument("target must hold 0 to " + std::to_string(classes - 1) +
                                " or the ignore_index, got " + got);
  }

  const LossInput &input_;
  const LossKernels<Real> &kernels_;
  LossViews views_;
  const BlockTransfer<Real> transfer_; // its walk was planned over the views
  const std::int64_t block_voxels_;
  const std::int64_t items_;
  const std::int64_t item_voxels_;
  const bool past_caches_;
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
    const LossPass<Real> pass(input, nullptr);
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
    const LossPass<Real> pass(input, &gradient);
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
    const LossPass<Real> pass(input, nullptr);
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
    const LossPass<Real> pass(input, &gradient);
    pass.differentiate(
        bins.words() * input.classes, factors, n_threads,
        [&](const LogitBlock<Real> &block, LossScratch<Real> &scratch, const Real *from) {
          pass.kernels().bin_gradient(bin_block(block, bins, thresholds, scratch), from,
                                      scratch.gradient);
        });
  });
}

} // namespace fastcal::cpu
