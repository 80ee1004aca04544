// The maps stage on one block of voxels: load, accumulate a member, finish. Compiled once an
// instruction set, with contraction.

#include "cpu/kernels.h"
#include "cpu/vec_math.h"

namespace fastcal::cpu::FASTCAL_ISA {

// ---------------------------------------------------------------------------------------- load

static inline float half_to_float(std::uint16_t half) {
  // Shifted into place the exponent is 112 too small; the multiply repairs it, subnormals included.
  std::uint32_t bits = static_cast<std::uint32_t>(half & 0x7fff) << 13;
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof bits);
  magnitude *= 5.192296858534828e33F; // 2^112
  std::memcpy(&bits, &magnitude, sizeof bits);
  bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000U : 0U;
  bits |= static_cast<std::uint32_t>(half & 0x8000) << 16;
  std::memcpy(&magnitude, &bits, sizeof bits);
  return magnitude;
}

static inline float bfloat_to_float(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

struct Half {
  std::uint16_t bits;
};
struct BFloat {
  std::uint16_t bits;
};

static inline float to_real(float value) { return value; }
static inline double to_real(double value) { return value; }
static inline float to_real(Half value) { return half_to_float(value.bits); }
static inline float to_real(BFloat value) { return bfloat_to_float(value.bits); }

template <typename Real, typename Element>
static inline void load_row(const Element *__restrict from, Real *__restrict to, std::int64_t n) {
  std::int64_t i = 0;
#if defined(__AVX512F__)
  if constexpr (sizeof(Element) == 2 && sizeof(Real) == 4) {
    // The zero-masked forms: gcc 12 warns about the undefined source of the plain ones.
    constexpr __mmask16 kAll = 0xffff;
    for (; i + 16 <= n; i += 16) {
      const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from + i));
      __m512 wide;
      if constexpr (__is_same(Element, Half)) {
        wide = _mm512_maskz_cvtph_ps(kAll, raw);
      } else {
        const __m512i words = _mm512_maskz_cvtepu16_epi32(kAll, raw);
        wide = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, words, 16));
      }
      _mm512_storeu_ps(to + i, wide);
    }
  }
#elif defined(__F16C__)
  if constexpr (__is_same(Element, Half)) {
    for (; i + 8 <= n; i += 8) {
      const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i));
      _mm256_storeu_ps(to + i, _mm256_cvtph_ps(raw));
    }
  }
#endif
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

// ln x for x >= 0 with ln 0 = -inf; below 0 NaN.
template <typename Real> static inline Vec<Real> log_of_probability(Vec<Real> x) {
  constexpr Real kInfinity = static_cast<Real>(__builtin_inf());
  const Vec<Real> log = log2_vector<Real>(x) * Constants<Real>::kLn2;
  const Vec<Real> positive = x > Real{0} ? log + (x - x) : x - x - kInfinity;
  return x < Real{0} ? splat<Real>(static_cast<Real>(__builtin_nan(""))) : positive;
}

template <typename Real>
static void to_logits(Real *tile, std::int64_t pitch, std::int64_t voxels, std::int64_t classes,
                      Activation activation) {
  for (std::int64_t c = 0; c < classes; ++c) {
    for (std::int64_t i = 0; i < voxels; i += Lanes<Real>::kCount) {
      Real *at = tile + c * pitch + i;
      const Vec<Real> p = load(at);
      Vec<Real> z = log_of_probability<Real>(p);
      if (activation == Activation::kSigmoid) {
        // p = 1 becomes a large finite logit: +inf would mean invalid input.
        const Vec<Real> odds = z - log_of_probability<Real>(Real{1} - p);
        z = p == Real{1} ? splat<Real>(-Constants<Real>::kMinExponent) : odds;
      }
      store(at, z);
    }
  }
}

// ---------------------------------------------------------------------------- one member's numbers

template <typename Real> static inline Vec<Real> sigmoid(Vec<Real> z, Real log2e_over_t) {
  constexpr Real kLargest = static_cast<Real>(sizeof(Real) == 4 ? 3.40282347e38 : 1.7976931348623157e308);
  // +inf is invalid input: turn it into NaN instead of 1.
  z = z > kLargest ? splat<Real>(static_cast<Real>(__builtin_nan(""))) : z;
  const Vec<Real> t = z * log2e_over_t;
  const Vec<Real> e = exp2_vector<Real>(t < Real{0} ? t : -t);
  const Vec<Real> numerator = t < Real{0} ? e : splat<Real>(1) + (e - e);
  return numerator / (e + Real{1});
}

// -p log2 p - (1 - p) log2 (1 - p)
template <typename Real> static inline Vec<Real> bernoulli_bits(Vec<Real> p) {
  const Vec<Real> q = Real{1} - p;
  return -(p * log2_vector<Real>(p) + q * log2_vector<Real>(q));
}

template <typename Real>
static inline void add_moments(const Accumulate<Real> &a, std::int64_t at, Vec<Real> p) {
  if (a.square != nullptr) {
    store(a.square + at, load(a.square + at) + p * p * a.weight);
  }
}

template <typename Real>
static inline void add_votes(const Accumulate<Real> &a, std::int64_t i, IntVec<Real> best) {
  for (std::int64_t c = 0; a.votes != nullptr && c < a.classes; ++c) {
    Real *at = a.votes + c * a.pitch + i;
    store(at, load(at) + (best == splat_int<Real>(c) ? splat<Real>(1) : Vec<Real>{}));
  }
}

// Softmax of one member and its addition to the block. kClasses 0 takes the count at run time and
// keeps the exponentials in the lane scratch instead of registers.
template <typename Real, int kClasses, bool kEntropy, bool kMoments>
static void accumulate_softmax(const Accumulate<Real> &a) {
  constexpr int kLocal = kClasses > 0 ? kClasses : 1;
  const std::int64_t classes = kClasses > 0 ? kClasses : a.classes;
  const Real log2e_over_t = Constants<Real>::kLog2E * a.inverse_temperature;
  Vec<Real> local[kLocal];
  Vec<Real> *const e = kClasses > 0 ? local : reinterpret_cast<Vec<Real> *>(a.lane_scratch);
  Real *__restrict sum = a.sum;
  const Real *__restrict member = a.member;

  for (std::int64_t i = 0; i < a.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> top = load(member + i);
    IntVec<Real> best = {};
    e[0] = top;
#pragma GCC unroll 16
    for (std::int64_t c = 1; c < classes; ++c) {
      const Vec<Real> z = load(member + c * a.member_pitch + i);
      if constexpr (kClasses > 0) {
        e[c] = z;
      }
      if constexpr (kMoments) {
        best = z > top ? splat_int<Real>(c) : best;
      }
      top = z > top ? z : top;
    }
    if (a.prefetch) {
#pragma GCC unroll 16
      for (std::int64_t c = 0; c < classes; ++c) {
        __builtin_prefetch(member + c * a.member_pitch + i + a.voxels, 0, 2);
      }
    }
    Vec<Real> total = {};
    Vec<Real> weighted = {};
#pragma GCC unroll 16
    for (std::int64_t c = 0; c < classes; ++c) {
      const Vec<Real> z = kClasses > 0 ? e[c] : load(member + c * a.member_pitch + i);
      Vec<Real> t = (z - top) * log2e_over_t;
      e[c] = exp2_vector<Real>(t);
      total += e[c];
      if constexpr (kEntropy) {
        // The clamp of exp2 keeps 0 * -inf out of the sum.
        t = t < Constants<Real>::kMinExponent ? splat<Real>(Constants<Real>::kMinExponent) : t;
        weighted += e[c] * t;
      }
    }
    const Vec<Real> inverse = Real{1} / total;
    const Vec<Real> scaled = inverse * a.weight;
#pragma GCC unroll 16
    for (std::int64_t c = 0; c < classes; ++c) {
      store(sum + c * a.pitch + i, load(sum + c * a.pitch + i) + e[c] * scaled);
    }
    if constexpr (kEntropy) {
      const Vec<Real> h = (log2_vector<Real>(total) - weighted * inverse) * Constants<Real>::kLn2;
      store(a.entropy + i, load(a.entropy + i) + h * a.weight);
    }
    if constexpr (kMoments) {
      for (std::int64_t c = 0; c < classes; ++c) {
        add_moments<Real>(a, c * a.pitch + i, e[c] * inverse);
      }
      add_votes<Real>(a, i, best);
    }
  }
}

// Classes that do not share a denominator: sigmoid outputs, or probabilities as they are.
template <typename Real, bool kSigmoid, bool kEntropy>
static void accumulate_independent(const Accumulate<Real> &a) {
  const Real log2e_over_t = Constants<Real>::kLog2E * a.inverse_temperature;
  for (std::int64_t i = 0; i < a.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> entropy = {};
    Vec<Real> top = {};
    IntVec<Real> best = {};
    for (std::int64_t c = 0; c < a.classes; ++c) {
      Vec<Real> p = load(a.member + c * a.member_pitch + i);
      if (a.prefetch) {
        __builtin_prefetch(a.member + c * a.member_pitch + i + a.voxels, 0, 2);
      }
      if constexpr (kSigmoid) {
        p = sigmoid<Real>(p, log2e_over_t);
      }
      Real *at = a.sum + c * a.pitch + i;
      store(at, load(at) + p * a.weight);
      if constexpr (kEntropy) {
        const Vec<Real> q = p < Real{0} ? Vec<Real>{} : p;
        entropy += a.multilabel ? bernoulli_bits<Real>(q > Real{1} ? splat<Real>(1) : q)
                                : -(q * log2_vector<Real>(q));
      }
      add_moments<Real>(a, c * a.pitch + i, p);
      if (a.votes != nullptr && a.multilabel) {
        Real *votes = a.votes + c * a.pitch + i;
        store(votes, load(votes) + (p > Real{0.5} ? splat<Real>(1) : Vec<Real>{}));
      }
      best = c > 0 && !a.multilabel ? (p > top ? splat_int<Real>(c) : best) : best;
      top = c == 0 || a.multilabel ? p : (p > top ? p : top);
    }
    if constexpr (kEntropy) {
      Real *at = a.entropy + i;
      store(at, load(at) + entropy * (Constants<Real>::kLn2 * a.weight));
    }
    if (!a.multilabel) {
      add_votes<Real>(a, i, best);
    }
  }
}

// Logit space: the sum is of w z / T; only votes look at the member by itself.
template <typename Real> static void accumulate_logits(const Accumulate<Real> &a) {
  const Real factor = a.weight * a.inverse_temperature;
  for (std::int64_t i = 0; i < a.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> top = {};
    IntVec<Real> best = {};
    for (std::int64_t c = 0; c < a.classes; ++c) {
      const Vec<Real> z = load(a.member + c * a.member_pitch + i);
      Real *at = a.sum + c * a.pitch + i;
      store(at, load(at) + z * factor);
      if (a.votes != nullptr && a.multilabel) {
        Real *votes = a.votes + c * a.pitch + i;
        store(votes, load(votes) + (z > Real{0} ? splat<Real>(1) : Vec<Real>{}));
      }
      best = c > 0 ? (z > top ? splat_int<Real>(c) : best) : best;
      top = c == 0 ? z : (z > top ? z : top);
    }
    if (!a.multilabel) {
      add_votes<Real>(a, i, best);
    }
  }
}

template <typename Real> using AccumulateFunction = void (*)(const Accumulate<Real> &);

// Class counts in registers: 2 to 16 for float; double takes the run-time loop.
template <typename Real, bool kEntropy, bool kMoments>
static AccumulateFunction<Real> softmax_for(std::int64_t classes) {
  if constexpr (sizeof(Real) == 4) {
    static constexpr AccumulateFunction<Real> kSpecialised[] = {
        accumulate_softmax<Real, 2, kEntropy, kMoments>,
        accumulate_softmax<Real, 3, kEntropy, kMoments>,
        accumulate_softmax<Real, 4, kEntropy, kMoments>,
        accumulate_softmax<Real, 5, kEntropy, kMoments>,
        accumulate_softmax<Real, 6, kEntropy, kMoments>,
        accumulate_softmax<Real, 7, kEntropy, kMoments>,
        accumulate_softmax<Real, 8, kEntropy, kMoments>,
        accumulate_softmax<Real, 9, kEntropy, kMoments>,
        accumulate_softmax<Real, 10, kEntropy, kMoments>,
        accumulate_softmax<Real, 11, kEntropy, kMoments>,
        accumulate_softmax<Real, 12, kEntropy, kMoments>,
        accumulate_softmax<Real, 13, kEntropy, kMoments>,
        accumulate_softmax<Real, 14, kEntropy, kMoments>,
        accumulate_softmax<Real, 15, kEntropy, kMoments>,
        accumulate_softmax<Real, 16, kEntropy, kMoments>,
    };
    if (classes >= 2 && classes <= 16) {
      return kSpecialised[classes - 2];
    }
  }
  return accumulate_softmax<Real, 0, kEntropy, kMoments>;
}

template <typename Real> static void accumulate(const Accumulate<Real> &a) {
  const bool entropy = a.entropy != nullptr;
  const bool moments = a.square != nullptr || a.votes != nullptr;
  if (a.logit_space) {
    accumulate_logits<Real>(a);
  } else if (a.holds == Holds::kProbabilities) {
    entropy ? accumulate_independent<Real, false, true>(a)
            : accumulate_independent<Real, false, false>(a);
  } else if (a.activation == Activation::kSigmoid || a.multilabel) {
    entropy ? accumulate_independent<Real, true, true>(a)
            : accumulate_independent<Real, true, false>(a);
  } else if (moments) {
    (entropy ? softmax_for<Real, true, true> : softmax_for<Real, false, true>)(a.classes)(a);
  } else {
    (entropy ? softmax_for<Real, true, false> : softmax_for<Real, false, false>)(a.classes)(a);
  }
}

// -------------------------------------------------------------------------------------- finish

// Logit space: activates the mean logits into the mean planes.
template <typename Real> static void activate_mean(const FinishBlock<Real> &f) {
  Vec<Real> *const e = reinterpret_cast<Vec<Real> *>(f.lane_scratch);
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    if (f.activation == Activation::kSigmoid || f.multilabel) {
      for (std::int64_t c = 0; c < f.classes; ++c) {
        const Vec<Real> z = load(f.sum + c * f.pitch + i) * f.scale;
        store(f.mean + c * f.mean_pitch + i, sigmoid<Real>(z, Constants<Real>::kLog2E));
      }
      continue;
    }
    Vec<Real> top = load(f.sum + i) * f.scale;
    for (std::int64_t c = 0; c < f.classes; ++c) {
      e[c] = load(f.sum + c * f.pitch + i) * f.scale;
      top = e[c] > top ? e[c] : top;
    }
    Vec<Real> total = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      e[c] = exp2_vector<Real>((e[c] - top) * Constants<Real>::kLog2E);
      total += e[c];
    }
    const Vec<Real> inverse = Real{1} / total;
    for (std::int64_t c = 0; c < f.classes; ++c) {
      store(f.mean + c * f.mean_pitch + i, e[c] * inverse);
    }
  }
}

// The planes finish reads as probabilities: the sums times 1 / W, or the mean planes as they are.
template <typename Real> struct Probabilities {
  const Real *data;
  std::int64_t pitch;
  Real scale;

  inline Vec<Real> at(std::int64_t c, std::int64_t i) const {
    return load(data + c * pitch + i) * scale;
  }
};

template <typename Real> static inline Vec<Real> not_negative(Vec<Real> x) {
  return x < Real{0} ? Vec<Real>{} : x; // NaN stays
}

template <typename Real> static inline Vec<Real> nan_vector() {
  return splat<Real>(static_cast<Real>(__builtin_nan("")));
}

// Divides by the sum over the classes into the mean planes.
template <typename Real>
static void normalise_mean(const FinishBlock<Real> &f, const Probabilities<Real> &from) {
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    Vec<Real> total = {};
    IntVec<Real> outside = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> p = from.at(c, i);
      total += not_negative<Real>(p);
      outside |= (p < Real{-1e-3}) | (p > Real{1.001});
    }
    // Two is no probability: the range check that follows sees what was out of range before.
    const IntVec<Real> flagged = f.check_range ? outside : IntVec<Real>{};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> share = not_negative<Real>(from.at(c, i)) / total;
      store(f.mean + c * f.mean_pitch + i, flagged ? splat<Real>(2) : share);
    }
  }
}

// What the mean probabilities of one vector of voxels amount to.
template <typename Real> struct VoxelSummary {
  Vec<Real> class_sum;
  Vec<Real> confidence;
  Vec<Real> entropy;
  IntVec<Real> label;
  IntVec<Real> finite;
  IntVec<Real> valid; // finite, and in range where that is checked
};

template <typename Real>
static inline Vec<Real> mean_variance(const FinishBlock<Real> &f, std::int64_t i) {
  Vec<Real> total = {};
  for (std::int64_t c = 0; c < f.classes; ++c) {
    const Vec<Real> p = load(f.sum + c * f.pitch + i) * f.scale;
    total += not_negative<Real>(load(f.square_sum + c * f.pitch + i) * f.scale - p * p);
  }
  return total / static_cast<Real>(f.classes);
}

template <typename Real>
static inline Vec<Real> vote_disagreement(const FinishBlock<Real> &f, std::int64_t i) {
  Vec<Real> most = {};
  Vec<Real> minority = {};
  for (std::int64_t c = 0; c < f.classes; ++c) {
    const Vec<Real> share = load(f.votes + c * f.pitch + i) * f.inverse_members;
    most = share > most ? share : most;
    minority += share > Real{0.5} ? Real{1} - share : share;
  }
  return f.multilabel ? minority / static_cast<Real>(f.classes) : Real{1} - most;
}

template <typename Real>
static inline void write_summary(const FinishBlock<Real> &f, std::int64_t i,
                                 const VoxelSummary<Real> &v) {
  const Vec<Real> nan = nan_vector<Real>();
  const Vec<Real> entropy = not_negative<Real>(v.entropy);
  if (f.entropy != nullptr) {
    store(f.entropy + i, v.valid ? entropy : nan);
  }
  if (f.expected_entropy != nullptr) {
    store(f.expected_entropy + i, v.valid ? load(f.entropy_sum + i) * f.scale : nan);
  }
  if (f.mutual_information != nullptr) {
    const Vec<Real> difference = entropy - load(f.entropy_sum + i) * f.scale;
    store(f.mutual_information + i, v.valid ? not_negative<Real>(difference) : nan);
  }
  if (f.variance != nullptr) {
    store(f.variance + i, v.valid ? mean_variance<Real>(f, i) : nan);
  }
  if (f.disagreement != nullptr) {
    store(f.disagreement + i, v.valid ? vote_disagreement<Real>(f, i) : nan);
  }
  if (f.validity != nullptr) {
    store_lanes<Real>(f.validity + i,
                      v.finite ? ~v.valid & splat_int<Real>(3) : splat_int<Real>(1));
  }
  if (f.mean != nullptr && bits_of<Real>(~v.valid) != 0) {
    for (std::int64_t c = 0; c < f.classes; ++c) {
      Real *at = f.mean + c * f.mean_pitch + i;
      store(at, v.valid ? load(at) : nan);
    }
  }
}

template <typename Real, bool kEntropy, bool kStore, bool kRange>
static void finish_exclusive(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    VoxelSummary<Real> v = {};
    Vec<Real> lowest = {};
    Vec<Real> bits = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      Vec<Real> p = mean.at(c, i);
      if constexpr (kRange) {
        lowest = p < lowest ? p : lowest;
        p = not_negative<Real>(p);
      }
      if constexpr (kStore) {
        store(f.mean + c * f.mean_pitch + i, p);
      }
      v.class_sum += p;
      v.label = p > v.confidence ? splat_int<Real>(c) : v.label;
      v.confidence = p > v.confidence ? p : v.confidence;
      if constexpr (kEntropy) {
        bits -= p * log2_vector<Real>(p);
      }
    }
    v.finite = v.class_sum - v.class_sum == Vec<Real>{};
    v.valid = v.finite;
    if constexpr (kRange) {
      v.valid &= (lowest >= Real{-1e-3}) & (v.confidence <= Real{1.001});
    }
    v.entropy = bits * Constants<Real>::kLn2;
    write_summary<Real>(f, i, v);
    if (f.confidence != nullptr) {
      store(f.confidence + i, v.valid ? v.confidence : nan_vector<Real>());
    }
    if (f.label != nullptr) {
      store_lanes<Real>(f.label + i, v.valid ? v.label : ~IntVec<Real>{});
    }
    if (f.class_sum != nullptr) {
      store(f.class_sum + i, v.class_sum);
    }
  }
}

template <typename Real>
static void finish_multilabel(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  const bool wants_entropy = f.entropy != nullptr || f.mutual_information != nullptr;
  for (std::int64_t i = 0; i < f.voxels; i += Lanes<Real>::kCount) {
    VoxelSummary<Real> v = {};
    IntVec<Real> outside = {};
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> raw = mean.at(c, i);
      const Vec<Real> p = not_negative<Real>(raw);
      outside |= (raw < Real{-1e-3}) | (raw > Real{1.001});
      v.class_sum += raw;
      if (f.mean != nullptr) {
        store(f.mean + c * f.mean_pitch + i, p);
      }
      if (wants_entropy) {
        v.entropy += bernoulli_bits<Real>(p > Real{1} ? splat<Real>(1) : p);
      }
    }
    v.finite = v.class_sum - v.class_sum == Vec<Real>{};
    v.valid = f.check_range ? v.finite & ~outside : v.finite;
    v.entropy *= Constants<Real>::kLn2;
    for (std::int64_t c = 0; c < f.classes; ++c) {
      const Vec<Real> p = not_negative<Real>(mean.at(c, i));
      const IntVec<Real> positive = p > Real{0.5};
      if (f.label != nullptr) {
        store_lanes<Real>(f.label + c * f.block_pitch + i,
                          v.valid ? positive & splat_int<Real>(1) : ~IntVec<Real>{});
      }
      if (f.confidence != nullptr) {
        store(f.confidence + c * f.block_pitch + i,
              v.valid ? (positive ? p : Real{1} - p) : nan_vector<Real>());
      }
    }
    write_summary<Real>(f, i, v); // last: it may overwrite the mean that was just read
  }
}

template <typename Real, bool kRange>
static void finish_exclusive_for(const FinishBlock<Real> &f, const Probabilities<Real> &mean) {
  const bool entropy = f.entropy != nullptr || f.mutual_information != nullptr;
  if (f.mean != nullptr && f.mean != mean.data) {
    (entropy ? finish_exclusive<Real, true, true, kRange>
             : finish_exclusive<Real, false, true, kRange>)(f, mean);
  } else {
    (entropy ? finish_exclusive<Real, true, false, kRange>
             : finish_exclusive<Real, false, false, kRange>)(f, mean);
  }
}

template <typename Real> static void finish(const FinishBlock<Real> &f) {
  Probabilities<Real> mean{f.sum, f.pitch, f.scale};
  if (f.logit_space) {
    activate_mean<Real>(f);
    mean = {f.mean, f.mean_pitch, Real{1}};
  }
  if (f.normalise && !f.multilabel) {
    normalise_mean<Real>(f, mean);
    mean = {f.mean, f.mean_pitch, Real{1}};
  }
  if (f.multilabel) {
    finish_multilabel<Real>(f, mean);
  } else if (f.check_range) {
    finish_exclusive_for<Real, true>(f, mean);
  } else {
    finish_exclusive_for<Real, false>(f, mean);
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
