// How many voxels each pair of members gives to each class. Where all members agree, which is
// nearly everywhere, one count serves every pair. Elsewhere the voxels of a member and class are
// the bits of a word.
#include <algorithm>
#include <mutex>
#include <vector>

#include "cpu/segment_shapes.h"
#include "cpu/thread_pool.h"

namespace fastcal::cpu {

namespace {

constexpr std::int64_t kWord = 64;
constexpr std::int64_t kChunk = 1 << 16; // voxels of a task

std::int64_t count_bits(std::uint64_t word) {
  // std::popcount is of C++20, and its instruction not of every x86-64 processor.
  word -= word >> 1 & 0x5555555555555555ull;
  word = (word & 0x3333333333333333ull) + (word >> 2 & 0x3333333333333333ull);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0full;
  return static_cast<std::int64_t>(word * 0x0101010101010101ull >> 56);
}

class OverlapCount {
public:
  OverlapCount(const std::vector<const std::uint8_t *> &labels, std::int64_t classes)
      : labels_(labels), classes_(classes), members_(static_cast<std::int64_t>(labels.size())),
        agreed_(static_cast<std::size_t>(classes)),
        found_(static_cast<std::size_t>(classes * members_ * members_)),
        bits_(static_cast<std::size_t>(classes * members_)) {}

  void add(std::int64_t first, std::int64_t end) {
    for (; first < end; first += kWord) {
      const std::int64_t n = std::min(kWord, end - first);
      if (all_agree(first, n)) {
        count_agreed(labels_[0] + first, n);
      } else {
        count_pairs(first, n);
      }
    }
  }

  void add_to(std::int64_t *found) const {
    for (std::int64_t k = 0, place = 0; k < classes_; ++k) {
      for (std::int64_t i = 0; i < members_; ++i) {
        for (std::int64_t j = 0; j < members_; ++j, ++place) {
          const std::int64_t pair = found_[static_cast<std::size_t>(
              (k * members_ + std::min(i, j)) * members_ + std::max(i, j))];
          found[place] += pair + agreed_[static_cast<std::size_t>(k)];
        }
      }
    }
  }

private:
  bool all_agree(std::int64_t first, std::int64_t n) const {
    const std::uint8_t *one = labels_[0] + first;
    for (std::int64_t m = 1; m < members_; ++m) {
      if (!std::equal(one, one + n, labels_[static_cast<std::size_t>(m)] + first)) {
        return false;
      }
    }
    return true;
  }

  void count_agreed(const std::uint8_t *label, std::int64_t n) {
    if (std::equal(label + 1, label + n, label)) {
      if (label[0] < classes_) {
        agreed_[label[0]] += n;
      }
      return;
    }
    for (std::int64_t i = 0; i < n; ++i) {
      if (label[i] < classes_) {
        ++agreed_[label[i]];
      }
    }
  }

  void count_pairs(std::int64_t first, std::int64_t n) {
    std::fill(bits_.begin(), bits_.end(), 0);
    for (std::int64_t m = 0; m < members_; ++m) {
      const std::uint8_t *label = labels_[static_cast<std::size_t>(m)] + first;
      for (std::int64_t i = 0; i < n; ++i) {
        if (label[i] < classes_) {
          bits_[static_cast<std::size_t>(label[i] * members_ + m)] |= std::uint64_t{1} << i;
        }
      }
    }
    for (std::int64_t k = 0; k < classes_; ++k) {
      const std::uint64_t *bits = bits_.data() + k * members_;
      for (std::int64_t i = 0; i < members_; ++i) {
        std::int64_t *pairs = found_.data() + (k * members_ + i) * members_;
        for (std::int64_t j = i; j < members_ && bits[i] != 0; ++j) {
          pairs[j] += count_bits(bits[i] & bits[j]);
        }
      }
    }
  }

  const std::vector<const std::uint8_t *> &labels_;
  const std::int64_t classes_;
  const std::int64_t members_;
  std::vector<std::int64_t> agreed_; // [classes]
  std::vector<std::int64_t> found_;  // [classes][members][members], the upper triangle
  std::vector<std::uint64_t> bits_;  // [classes][members], of 64 voxels
};

} // namespace

void overlaps(const std::vector<const std::uint8_t *> &labels, std::int64_t voxels,
              std::int64_t classes, std::int64_t *found, int n_threads) {
  // Few large tasks, as the counts of each are of the size of the result.
  const std::int64_t chunks = (voxels + kChunk - 1) / kChunk;
  const std::int64_t tasks = std::min<std::int64_t>(chunks, 8 * n_threads);
  std::mutex mutex;
  parallel_for(tasks, n_threads, [&](std::int64_t task) {
    OverlapCount count(labels, classes);
    count.add(chunks * task / tasks * kChunk,
              std::min(voxels, chunks * (task + 1) / tasks * kChunk));
    const std::lock_guard<std::mutex> lock(mutex);
    count.add_to(found);
  });
}

} // namespace fastcal::cpu
