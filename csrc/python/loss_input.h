// Turns the plain tuples of fastcal.backends.native into what a loss reads and wants.
#pragma once

#include <vector>

#include "core/loss_input.h"
#include "python/views.h"

namespace fastcal::python {

// (shape, classes, logits, target, head, ignore index or None)
inline LossInput loss_input_from(const py::tuple &fields) {
  LossInput input;
  input.shape = fields[0].cast<std::vector<std::int64_t>>();
  input.classes = fields[1].cast<std::int64_t>();
  input.logits = view_from(fields[2]);
  input.target = view_from(fields[3]);
  input.reading.head = static_cast<Activation>(fields[4].cast<std::int32_t>());
  input.reading.has_ignore_index = !fields[5].is_none();
  if (input.reading.has_ignore_index) {
    input.reading.ignore_index = fields[5].cast<std::int64_t>();
  }
  return input;
}

// (overlaps, likelihood, rest)
inline SumsWanted sums_wanted_from(const py::tuple &fields) {
  return {fields[0].cast<bool>(), fields[1].cast<bool>(), fields[2].cast<bool>()};
}

} // namespace fastcal::python
