// Turns the plain tuple of fastcal.backends.native.plain_temperature into a TemperatureProblem.
#pragma once

#include "core/temperature.h"
#include "python/views.h"

namespace fastcal::python {

// (classes, values, target, mask or None, ignore index or None, from logits, Bernoullis,
// multilabel, smallest p, smallest 1 - p)
inline TemperatureProblem temperature_problem_from(const py::tuple &fields) {
  TemperatureProblem problem;
  problem.classes = fields[0].cast<std::int64_t>();
  problem.values = view_from(fields[1]);
  problem.target = view_from(fields[2]);
  if (!fields[3].is_none()) {
    problem.mask = view_from(fields[3]);
  }
  problem.has_ignore_index = !fields[4].is_none();
  if (problem.has_ignore_index) {
    problem.ignore_index = fields[4].cast<std::int64_t>();
  }
  problem.from_logits = fields[5].cast<bool>();
  problem.bernoulli = fields[6].cast<bool>();
  problem.multilabel = fields[7].cast<bool>();
  problem.floor = {fields[8].cast<double>(), fields[9].cast<double>()};
  return problem;
}

} // namespace fastcal::python
