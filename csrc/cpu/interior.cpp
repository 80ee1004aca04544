// Squared distances to the nearest voxel of another label, one axis after another. Along an axis
// that voxel is k steps away, or lies beyond a voxel of the same label whose distance in the axes
// before is known. Distances above the limit need not be told apart, so that bytes hold them.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/expects.h"
#include "cpu/segment_shapes.h"
#include "cpu/thread_pool.h"

namespace fastcal::cpu {

namespace {

using Byte = std::uint8_t;

constexpr int kMostLimit = 100; // so that limit + 1 and another limit fit into a byte
constexpr int kMixed = -1;

// Bytes may alias everything, so these loops take what they need as arguments.

// Lowers the squared distances of a line by those of another one, which is `across` away (squared):
// a voxel there has another label itself, or one is known to be nearest to it.
void relax(Byte *__restrict nearest, const Byte *__restrict here, const Byte *__restrict there,
           const Byte *__restrict squared, Byte across, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const Byte known = squared[i]; // read in any case, or there are no vectors
    const Byte beyond = here[i] == there[i] ? known : Byte{0};
    const Byte candidate = static_cast<Byte>(beyond + across);
    nearest[i] = candidate < nearest[i] ? candidate : nearest[i];
  }
}

// The same where no distance is known yet.
void relax_first(Byte *__restrict nearest, const Byte *here, const Byte *there, Byte across,
                 Byte far, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const Byte candidate = here[i] == there[i] ? far : across;
    nearest[i] = candidate < nearest[i] ? candidate : nearest[i];
  }
}

void compare(Byte *values, int limit, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    values[i] = values[i] > limit ? 1 : 0;
  }
}

class InteriorPass {
public:
  InteriorPass(const Byte *labels, const Extents &extents, int limit, std::int64_t reach,
               Byte *inside)
      : labels_(labels), extents_(extents), limit_(static_cast<Byte>(limit)),
        far_(static_cast<Byte>(limit + 1)), reach_(reach), inside_(inside),
        only_(static_cast<std::size_t>(extents.planes * extents.lines)), still_(only_.size()),
        in_line_(new Byte[static_cast<std::size_t>(extents.voxels())]),
        in_plane_(new Byte[static_cast<std::size_t>(extents.voxels())]) {}

  void run(int n_threads) {
    parallel_for(extents_.planes, n_threads, [&](std::int64_t plane) {
      for (std::int64_t line = 0; line < extents_.lines; ++line) {
        along_line(plane * extents_.lines + line);
      }
      for (std::int64_t line = 0; line < extents_.lines; ++line) {
        along_plane(plane, line);
      }
    });
    parallel_for(extents_.planes, n_threads, [&](std::int64_t plane) {
      for (std::int64_t line = 0; line < extents_.lines; ++line) {
        along_volume(plane, line);
      }
    });
  }

private:
  void along_line(std::int64_t row) {
    const Byte *here = labels_ + row * extents_.length;
    Byte *nearest = in_line_.get() + row * extents_.length;
    std::memset(nearest, far_, static_cast<std::size_t>(extents_.length));
    const bool uniform =
        std::memcmp(here, here + 1, static_cast<std::size_t>(extents_.length - 1)) == 0;
    only_[static_cast<std::size_t>(row)] = uniform ? here[0] : kMixed;
    if (uniform) {
      return;
    }
    for (std::int64_t k = 1; k <= std::min(reach_, extents_.length - 1); ++k) {
      const Byte across = static_cast<Byte>(k * k);
      relax_first(nearest, here, here + k, across, far_, extents_.length - k);
      relax_first(nearest + k, here + k, here, across, far_, extents_.length - k);
    }
  }

  void along_plane(std::int64_t plane, std::int64_t line) {
    const std::int64_t row = plane * extents_.lines + line;
    Byte *nearest = in_plane_.get() + row * extents_.length;
    std::memcpy(nearest, in_line_.get() + row * extents_.length,
                static_cast<std::size_t>(extents_.length));
    bool still = only_[static_cast<std::size_t>(row)] != kMixed;
    for (std::int64_t k = 1; k <= std::min(reach_, extents_.lines - 1); ++k) {
      for (const std::int64_t step : {-k, k}) {
        if (line + step >= 0 && line + step < extents_.lines && !same(row, row + step)) {
          relax_row(nearest, row, row + step, in_line_.get(), k);
          still = false;
        }
      }
    }
    still_[static_cast<std::size_t>(row)] = still;
  }

  void along_volume(std::int64_t plane, std::int64_t line) {
    const std::int64_t row = plane * extents_.lines + line;
    const std::int64_t first = row * extents_.length;
    Byte *nearest = inside_ + first;
    std::memcpy(nearest, in_plane_.get() + first, static_cast<std::size_t>(extents_.length));
    for (std::int64_t k = 1; k <= std::min(reach_, extents_.planes - 1); ++k) {
      for (const std::int64_t step : {-k, k}) {
        const std::int64_t other = row + step * extents_.lines;
        const bool there = plane + step >= 0 && plane + step < extents_.planes;
        if (there && !(same(row, other) && still_[static_cast<std::size_t>(other)] != 0)) {
          relax_row(nearest, row, other, in_plane_.get(), k);
        }
      }
    }
    compare(nearest, limit_, extents_.length);
  }

  void relax_row(Byte *nearest, std::int64_t row, std::int64_t other, const Byte *squared,
                 std::int64_t k) const {
    const std::int64_t length = extents_.length;
    relax(nearest, labels_ + row * length, labels_ + other * length, squared + other * length,
          static_cast<Byte>(k * k), length);
  }

  // Whether both lines consist of one label, so that neither brings the other's boundary nearer.
  bool same(std::int64_t row, std::int64_t other) const {
    const int label = only_[static_cast<std::size_t>(row)];
    return label != kMixed && label == only_[static_cast<std::size_t>(other)];
  }

  const Byte *labels_;
  const Extents extents_;
  const Byte limit_;
  const Byte far_;
  const std::int64_t reach_;
  Byte *inside_;
  std::vector<int> only_;                 // the label of each line, or kMixed
  std::vector<std::uint8_t> still_;       // 1: the line is far from every boundary of its plane
  const std::unique_ptr<Byte[]> in_line_; // squared distances along the lines
  const std::unique_ptr<Byte[]> in_plane_;
};

} // namespace

void interior(const Byte *labels, const Extents &extents, int limit, std::int64_t reach,
              Byte *inside, int n_threads) {
  expects(limit >= 0 && limit <= kMostLimit, "limit must be from 0 to 100");
  if (extents.voxels() > 0) {
    InteriorPass(labels, extents, limit, reach, inside).run(n_threads);
  }
}

} // namespace fastcal::cpu
