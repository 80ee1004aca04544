// Moves planes between memory, of any strides and element type, and tiles in the cache. Compiled
// once per instruction set.

#include "cpu/element.h"
#include "cpu/kernels.h"

namespace fastcal::cpu::FASTCAL_ISA {

template <typename Real, typename Element>
static inline void load_row(const Element *__restrict from, Real *__restrict to, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + Lanes<Real>::kCount <= n; i += Lanes<Real>::kCount) {
    store(to + i, load_real<Real>(from + i));
    __builtin_prefetch(from + i + n, 0, 2); // of the next block
  }
  for (; i < n; ++i) {
    to[i] = static_cast<Real>(to_real(from[i]));
  }
}

template <typename Real, typename Element>
static inline void load_elements(const Run &run, Real *__restrict tile, std::int64_t pitch) {
  const Element *from = static_cast<const Element *>(run.data);
  if (run.voxel_stride == 1) {
    for (std::int64_t c = 0; c < run.classes; ++c) {
      load_row(from + c * run.class_stride, tile + c * pitch, run.voxels);
    }
    return;
  }
  for (std::int64_t v = 0; v < run.voxels; ++v) {
    const Element *voxel = from + v * run.voxel_stride;
    for (std::int64_t c = 0; c < run.classes; ++c) {
      tile[c * pitch + v] = static_cast<Real>(to_real(voxel[c * run.class_stride]));
    }
  }
}

template <typename Real> static void load_tile(const Run &run, Real *tile, std::int64_t pitch) {
  if constexpr (sizeof(Real) == 8) {
    load_elements<Real, double>(run, tile, pitch);
  } else if (run.dtype == Dtype::kFloat16) {
    load_elements<Real, Half>(run, tile, pitch);
  } else if (run.dtype == Dtype::kBFloat16) {
    load_elements<Real, BFloat>(run, tile, pitch);
  } else {
    load_elements<Real, float>(run, tile, pitch);
  }
}

template <typename Element> static inline bool is_vector_aligned(const Element *to) {
  return reinterpret_cast<std::uintptr_t>(to) % FASTCAL_VECTOR_BYTES == 0;
}

template <typename To, typename From>
static inline void store_row(To *__restrict to, const From *__restrict from, std::int64_t n,
                             bool past_caches) {
  typedef To ToVector __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
  constexpr std::int64_t kStep = FASTCAL_VECTOR_BYTES / static_cast<std::int64_t>(sizeof(To));
  typedef From FromVector __attribute__((vector_size(kStep * sizeof(From))));
  std::int64_t i = 0;
  if (past_caches) {
    for (; i < n && !is_vector_aligned(to + i); ++i) {
      to[i] = static_cast<To>(from[i]);
    }
    for (; i + kStep <= n; i += kStep) {
      stream(to + i, __builtin_convertvector(load_as<FromVector>(from + i), ToVector));
    }
  }
  for (; i < n; ++i) {
    to[i] = static_cast<To>(from[i]);
  }
}

template <typename To, typename From>
static inline void store_elements(const Run &run, const From *tile, std::int64_t pitch,
                                  bool past_caches) {
  To *to = static_cast<To *>(const_cast<void *>(run.data));
  for (std::int64_t c = 0; c < run.classes; ++c) {
    const From *from = tile + c * pitch;
    To *plane = to + c * run.class_stride;
    if (run.voxel_stride == 1) {
      store_row(plane, from, run.voxels, past_caches);
      continue;
    }
    for (std::int64_t v = 0; v < run.voxels; ++v) {
      plane[v * run.voxel_stride] = static_cast<To>(from[v]);
    }
  }
}

template <typename Real>
static void store_tile(const Run &run, const Real *tile, std::int64_t pitch, bool past_caches) {
  store_elements<Real>(run, tile, pitch, past_caches);
}

// Stores labels as integers of any type.
static void store_labels(const Run &run, const std::int32_t *tile, std::int64_t pitch,
                         bool past_caches) {
  switch (size_of(run.dtype)) {
  case 8:
    return store_elements<std::int64_t>(run, tile, pitch, past_caches);
  case 4:
    return store_elements<std::int32_t>(run, tile, pitch, past_caches);
  case 2:
    return store_elements<std::int16_t>(run, tile, pitch, false);
  default:
    return store_elements<std::int8_t>(run, tile, pitch, false);
  }
}

static std::uint64_t read_words(const std::uint64_t *words, std::int64_t n_words) {
  typedef std::uint64_t Words __attribute__((vector_size(FASTCAL_VECTOR_BYTES)));
  constexpr std::int64_t kStep = FASTCAL_VECTOR_BYTES / 8;
  Words sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kStep <= n_words; i += 4 * kStep) {
    for (int k = 0; k < 4; ++k) {
      sums[k] ^= load_as<Words>(words + i + k * kStep);
    }
  }
  std::uint64_t sum = 0;
  for (; i < n_words; ++i) {
    sum ^= words[i];
  }
  const Words all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  for (int lane = 0; lane < kStep; ++lane) {
    sum ^= all[lane];
  }
  return sum;
}

} // namespace fastcal::cpu::FASTCAL_ISA
