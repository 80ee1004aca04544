// Turns the plain tuple of fastcal.backends.native.plain_segments into a SegmentProblem.
#pragma once

#include "core/segment_problem.h"
#include "python/views.h"

namespace fastcal::python {

// (classes, mean, label, entropy or None, mutual information or None, votes or None, interior or
// None, ignore index or None, multilabel, binary, clip)
inline SegmentProblem segment_problem_from(const py::tuple &fields, std::uintptr_t sums) {
  SegmentProblem problem;
  problem.classes = fields[0].cast<std::int64_t>();
  problem.mean = view_from(fields[1]);
  problem.label = view_from(fields[2]);
  View *const optional[] = {&problem.entropy, &problem.information, &problem.votes,
                            &problem.interior};
  for (int k = 0; k < 4; ++k) {
    if (!fields[3 + k].is_none()) {
      *optional[k] = view_from(fields[3 + k]);
    }
  }
  problem.has_ignore_index = !fields[7].is_none();
  if (problem.has_ignore_index) {
    problem.ignore_index = fields[7].cast<std::int64_t>();
  }
  problem.multilabel = fields[8].cast<bool>();
  problem.binary = fields[9].cast<bool>();
  problem.clip = fields[10].cast<bool>();
  problem.sums = reinterpret_cast<std::int64_t *>(sums);
  return problem;
}

} // namespace fastcal::python
