// The largest mean over a patch around the voxels of each class. Sums over windows of `width`
// values are made axis by axis from sums of 1, 2, 4, ... of them. None is the difference of larger
// ones, so that float keeps all but its last bits; and their order is that of
// fastcal.segments.patches.
#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "cpu/segment_shapes.h"
#include "cpu/thread_pool.h"

namespace fastcal::cpu {

namespace {

constexpr std::int64_t kColumns = 256; // of a task along the first axis, whose windows stay in L2
constexpr std::int64_t kLanes = 16;

template <typename Real> Real number(Real value) {
  constexpr Real kMost = std::numeric_limits<Real>::max();
  return value == value ? std::min(std::max(value, -kMost), kMost) : Real{0};
}

template <typename Real>
void add(Real *__restrict to, const Real *__restrict other, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    to[i] += other[i];
  }
}

// Adds to each value the one that lies `step` behind it, as it was before.
template <typename Real> void add_behind(Real *values, std::int64_t step, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Real sums[kLanes]; // read as a whole before anything is written, so that it is vectors
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] = values[i + lane] + values[i + step + lane];
    }
    std::copy(sums, sums + kLanes, values + i);
  }
  for (; i < n; ++i) {
    values[i] += values[i + step];
  }
}

template <typename Real> Real largest_of(const Real *values, std::int64_t n) {
  Real lanes[kLanes];
  std::fill(lanes, lanes + kLanes, values[0]);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  return std::max(*std::max_element(lanes, lanes + kLanes),
                  *std::max_element(values + std::min(i, n - 1), values + n));
}

// Sums of `width` rows each, of `extent` rows of n values. They take the place of the first rows of
// `values` or lie in `result`; the return value says where. Both are overwritten.
template <typename Real>
Real *window_sums(Real *values, Real *result, std::int64_t extent, std::int64_t n,
                  std::int64_t width) {
  bool started = false;
  std::int64_t covered = 0;
  for (std::int64_t length = 1;; length *= 2) {
    const bool last = 2 * length > width;
    if ((width & length) != 0) {
      const std::int64_t rows = extent - length + 1 - covered;
      if (!started && last) {
        return values; // the sums of a power of two
      }
      if (!started) {
        std::copy(values, values + rows * n, result);
      } else {
        add(result, values + covered * n, rows * n);
      }
      started = true;
      covered += length;
    }
    if (last) {
      return result;
    }
    add_behind(values, length * n, (extent - 2 * length + 1) * n);
  }
}

template <typename Real> class PatchPass {
public:
  explicit PatchPass(const PatchProblem<Real> &problem)
      : p_(problem), e_(problem.extents),
        width_{std::min(p_.size, e_.planes), std::min(p_.size, e_.lines),
               std::min(p_.size, e_.length)} {}

  void run(int n_threads) {
    const std::int64_t columns = e_.lines * e_.length;
    parallel_for((columns + kColumns - 1) / kColumns, n_threads, [&](std::int64_t task) {
      add_planes(task * kColumns, std::min(kColumns, columns - task * kColumns));
    });
    std::mutex mutex;
    // A slab of patches that begin at the same plane serves all voxels whose patches those are.
    parallel_for(e_.planes - width_[0] + 1, n_threads, [&](std::int64_t first) {
      std::vector<Real> largest(static_cast<std::size_t>(p_.classes),
                                -std::numeric_limits<Real>::infinity());
      of_slab(first, largest.data());
      const std::lock_guard<std::mutex> lock(mutex);
      for (std::int64_t k = 0; k < p_.classes; ++k) {
        p_.largest[k] =
            std::max(p_.largest[k], static_cast<double>(largest[static_cast<std::size_t>(k)]));
      }
    });
  }

private:
  // Sums over windows of planes, for some columns.
  void add_planes(std::int64_t first, std::int64_t n) const {
    const std::int64_t columns = e_.lines * e_.length;
    std::vector<Real> values(static_cast<std::size_t>(e_.planes * n));
    std::vector<Real> result(values.size());
    for (std::int64_t plane = 0; plane < e_.planes; ++plane) {
      const Real *from = p_.values + plane * columns + first;
      std::transform(from, from + n, values.data() + plane * n, number<Real>);
    }
    const Real *sums = window_sums(values.data(), result.data(), e_.planes, n, width_[0]);
    for (std::int64_t plane = 0; plane <= e_.planes - width_[0]; ++plane) {
      std::copy(sums + plane * n, sums + (plane + 1) * n, p_.sums + plane * columns + first);
    }
  }

  void of_slab(std::int64_t first, Real *largest) const {
    const std::int64_t columns = e_.lines * e_.length;
    std::vector<Real> values(p_.sums + first * columns, p_.sums + (first + 1) * columns);
    std::vector<Real> result(values.size());
    const Real *sums = window_sums(values.data(), result.data(), e_.lines, e_.length, width_[1]);
    std::vector<Real> of_line(static_cast<std::size_t>(e_.length));
    std::vector<Real> spare(of_line.size());
    std::vector<Real> patches(of_line.size());
    for (std::int64_t window = 0; window <= e_.lines - width_[1]; ++window) {
      std::copy(sums + window * e_.length, sums + (window + 1) * e_.length, of_line.data());
      spread(window_sums(of_line.data(), spare.data(), e_.length, 1, width_[2]), patches.data());
      const Real most = largest_of(patches.data(), e_.length);
      for (std::int64_t plane = served_from(first, 0); plane < served_to(first, 0, e_.planes);
           ++plane) {
        for (std::int64_t line = served_from(window, 1); line < served_to(window, 1, e_.lines);
             ++line) {
          of_voxels((plane * e_.lines + line) * e_.length, patches.data(), most, largest);
        }
      }
    }
  }

  // Gives each voxel of a line the sum of its patch.
  void spread(const Real *sums, Real *patches) const {
    const std::int64_t before = width_[2] / 2;
    const std::int64_t last = e_.length - width_[2];
    for (std::int64_t i = 0; i < e_.length; ++i) {
      patches[i] = sums[std::min(std::max<std::int64_t>(i - before, 0), last)];
    }
  }

  // The voxels along an axis whose patches begin at `start`.
  std::int64_t served_from(std::int64_t start, int axis) const {
    return start == 0 ? 0 : start + width_[axis] / 2;
  }
  std::int64_t served_to(std::int64_t start, int axis, std::int64_t extent) const {
    return start == extent - width_[axis] ? extent : start + width_[axis] / 2 + 1;
  }

  void of_voxels(std::int64_t first, const Real *patches, Real most, Real *largest) const {
    // Most lines cannot raise what was found before.
    if (most <= *std::min_element(largest, largest + p_.classes)) {
      return;
    }
    if (!p_.multilabel) {
      const std::uint8_t *label = p_.labels + first;
      for (std::int64_t i = 0; i < e_.length; ++i) {
        if (label[i] < p_.classes && patches[i] > largest[label[i]]) {
          largest[label[i]] = patches[i];
        }
      }
      return;
    }
    for (std::int64_t k = 0; k < p_.classes; ++k) {
      const std::uint8_t *label = p_.labels + k * e_.voxels() + first;
      for (std::int64_t i = 0; i < e_.length; ++i) {
        if (label[i] == 1 && patches[i] > largest[k]) {
          largest[k] = patches[i];
        }
      }
    }
  }

  const PatchProblem<Real> &p_;
  const Extents e_;
  const std::int64_t width_[3];
};

template <typename Real> void run(const PatchProblem<Real> &problem, int n_threads) {
  std::fill(problem.largest, problem.largest + problem.classes,
            -std::numeric_limits<double>::infinity());
  if (problem.extents.voxels() > 0) {
    PatchPass<Real>(problem).run(n_threads);
  }
}

} // namespace

void patch_maxima(const PatchProblem<float> &problem, int n_threads) { run(problem, n_threads); }

void patch_maxima(const PatchProblem<double> &problem, int n_threads) { run(problem, n_threads); }

} // namespace fastcal::cpu
