// Connected components from runs of equal labels along the lines of a volume. Runs of neighbouring
// lines that touch are joined.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/segment_shapes.h"

namespace fastcal::cpu {

namespace {

struct Run {
  std::int64_t start;
  std::int64_t end;
  std::int64_t parent; // the run itself for the first run of a component
  std::uint8_t label;
};

class ComponentRuns {
public:
  ComponentRuns(const std::uint8_t *labels, const Extents &extents, std::int64_t classes)
      : labels_(labels), extents_(extents), classes_(classes),
        first_(static_cast<std::size_t>(extents.planes * extents.lines + 1)) {}

  void join() {
    for (std::int64_t plane = 0; plane < extents_.planes; ++plane) {
      for (std::int64_t line = 0; line < extents_.lines; ++line) {
        const std::int64_t row = plane * extents_.lines + line;
        first_[static_cast<std::size_t>(row)] = size();
        find_runs(row);
        first_[static_cast<std::size_t>(row + 1)] = size();
        if (line > 0) {
          join_lines(row, row - 1);
        }
        for (std::int64_t step = -1; step <= 1 && plane > 0; ++step) {
          if (line + step >= 0 && line + step < extents_.lines) {
            join_lines(row, row - extents_.lines + step);
          }
        }
      }
    }
  }

  void count(std::int64_t smallest, std::int64_t *counts) {
    std::vector<std::int64_t> voxels(runs_.size());
    for (std::int64_t run = 0; run < size(); ++run) {
      voxels[static_cast<std::size_t>(root(run))] += at(run).end - at(run).start;
    }
    for (std::int64_t run = 0; run < size(); ++run) {
      if (at(run).parent == run && voxels[static_cast<std::size_t>(run)] >= smallest) {
        ++counts[at(run).label];
      }
    }
  }

private:
  std::int64_t size() const { return static_cast<std::int64_t>(runs_.size()); }
  Run &at(std::int64_t run) { return runs_[static_cast<std::size_t>(run)]; }

  void find_runs(std::int64_t row) {
    const std::uint8_t *line = labels_ + row * extents_.length;
    std::int64_t start = 0;
    while (start < extents_.length) {
      const std::int64_t end = end_of_run(line, start);
      if (line[start] < classes_) {
        runs_.push_back({start, end, size(), line[start]});
      }
      start = end;
    }
  }

  // Where the run that begins at `start` ends. Most are long, so eight labels are compared at once.
  std::int64_t end_of_run(const std::uint8_t *line, std::int64_t start) const {
    const std::uint64_t eight = line[start] * 0x0101010101010101ull;
    std::int64_t end = start + 1;
    for (std::uint64_t next = eight; end + 8 <= extents_.length; end += 8) {
      std::memcpy(&next, line + end, 8);
      if (next != eight) {
        break;
      }
    }
    while (end < extents_.length && line[end] == line[start]) {
      ++end;
    }
    return end;
  }

  void join_lines(std::int64_t row, std::int64_t other) {
    std::int64_t a = first_[static_cast<std::size_t>(row)];
    std::int64_t b = first_[static_cast<std::size_t>(other)];
    const std::int64_t a_end = first_[static_cast<std::size_t>(row + 1)];
    const std::int64_t b_end = first_[static_cast<std::size_t>(other + 1)];
    while (a < a_end && b < b_end) {
      const Run &one = at(a);
      const Run &two = at(b);
      // Corners touch: a run may begin where the other one has just ended.
      if (one.label == two.label && one.start <= two.end && two.start <= one.end) {
        at(root(a)).parent = root(b);
      }
      // The longer one may touch the next run as well.
      if (one.end < two.end) {
        ++a;
      } else if (two.end < one.end) {
        ++b;
      } else {
        // Both end here; each may touch by a corner what follows the other.
        if (a + 1 < a_end && at(a + 1).label == two.label && at(a + 1).start <= two.end) {
          at(root(a + 1)).parent = root(b);
        }
        if (b + 1 < b_end && at(b + 1).label == one.label && at(b + 1).start <= one.end) {
          at(root(b + 1)).parent = root(a);
        }
        ++a;
        ++b;
      }
    }
  }

  std::int64_t root(std::int64_t run) {
    while (at(run).parent != run) {
      at(run).parent = at(at(run).parent).parent;
      run = at(run).parent;
    }
    return run;
  }

  const std::uint8_t *labels_;
  const Extents extents_;
  const std::int64_t classes_;
  std::vector<Run> runs_;
  std::vector<std::int64_t> first_; // the first run of each line
};

} // namespace

void count_components(const std::uint8_t *labels, const Extents &extents, std::int64_t classes,
                      std::int64_t smallest, std::int64_t *counts) {
  std::fill(counts, counts + classes, 0);
  if (extents.voxels() > 0) {
    ComponentRuns runs(labels, extents, classes);
    runs.join();
    runs.count(smallest, counts);
  }
}

} // namespace fastcal::cpu
