// The sums that losses are functions of, for each item and class, and the gradients of such losses.
//
// Logits are [groups, items, classes, ...] and targets [groups, items, ...]; `shape` is that of the
// targets. Results are bit-identical for any number of threads, because partial sums belong to
// fixed pieces of an item and are added in a fixed order.
#pragma once

#include <cstdint>

#include "core/loss_input.h"
#include "cpu/loss_kernels.h"

namespace fastcal::cpu {

// sums: [groups * items][sum::kRows][classes]. Throws std::invalid_argument where a target is not a
// class.
void class_sums(const LossInput &input, const SumsWanted &wanted, double *sums, int n_threads);

// factors: the derivative by each of the sums, in their order. The gradient has the shape of the
// logits.
void class_gradient(const LossInput &input, const SumsWanted &wanted, const double *factors,
                    const View &gradient, int n_threads);

// sums: [groups * items][classes][bins.words()]. The thresholds are of the accumulation type.
// Throws std::invalid_argument where a target is not a class.
void bin_gaps(const LossInput &input, const Bins &bins, const void *thresholds, double *sums,
              int n_threads);

void bin_gradient(const LossInput &input, const Bins &bins, const void *thresholds,
                  const double *factors, const View &gradient, int n_threads);

} // namespace fastcal::cpu
