// The passes of the losses on an NVIDIA GPU. They are asynchronous on the caller's stream and
// allocate nothing. A target that is not a class makes the sums of its image NaN.
#pragma once

#include <cstdint>

#include "core/loss_input.h"
#include "cuda/ensemble.h"
#include "cuda/error.h"

namespace fastcal::cuda {

// Bytes of device memory for sums of so many words per image.
std::int64_t loss_workspace_bytes(const LossInput &input, std::int64_t words);

// sums: [groups * images][sum::kRows][classes]
Error class_sums(const LossInput &input, const SumsWanted &wanted, double *sums,
                 const Place &place);

// factors: the derivative by each of the sums, in their order. The gradient has the shape of the
// logits.
Error class_gradient(const LossInput &input, const SumsWanted &wanted, const double *factors,
                     const View &gradient, const Place &place);

// sums: [groups * images][classes][bins.words()]. The thresholds are of the accumulation type, in
// device memory.
Error bin_gaps(const LossInput &input, const Bins &bins, const void *thresholds, double *sums,
               const Place &place);

Error bin_gradient(const LossInput &input, const Bins &bins, const void *thresholds,
                   const double *factors, const View &gradient, const Place &place);

} // namespace fastcal::cuda
