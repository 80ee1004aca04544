// Turns the plain tuples of fastcal/backends/native.py into the structs of core/problem.h.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "core/expects.h"
#include "core/problem.h"

namespace fastcal::python {

namespace py = pybind11;

template <typename T> T *address(const py::handle &number) {
  return reinterpret_cast<T *>(number.cast<std::uintptr_t>());
}

// (address, dtype, class stride, strides of the voxel axes)
inline View view_from(const py::handle &handle) {
  const auto fields = py::reinterpret_borrow<py::tuple>(handle);
  View view;
  view.data = address<void>(fields[0]);
  view.dtype = static_cast<Dtype>(fields[1].cast<std::int32_t>());
  view.class_stride = fields[2].cast<std::int64_t>();
  const auto strides = py::reinterpret_borrow<py::tuple>(fields[3]);
  expects(strides.size() <= kMaxAxes, "tensors must have at most 12 voxel axes");
  for (std::size_t axis = 0; axis < strides.size(); ++axis) {
    view.strides[axis] = strides[axis].cast<std::int64_t>();
  }
  return view;
}

inline std::vector<std::int64_t> shape_from(const py::tuple &extents) {
  return extents.cast<std::vector<std::int64_t>>();
}

// (from logits, activation, multilabel, logit space)
inline Reading reading_from(const py::tuple &fields) {
  Reading reading;
  reading.from_logits = fields[0].cast<bool>();
  reading.activation = static_cast<Activation>(fields[1].cast<std::int32_t>());
  reading.multilabel = fields[2].cast<bool>();
  reading.logit_space = fields[3].cast<bool>();
  return reading;
}

// (classes, entropy, square, votes)
inline StateLayout state_layout_from(const py::tuple &fields) {
  StateLayout layout;
  layout.num_classes = fields[0].cast<std::int64_t>();
  layout.entropy = fields[1].cast<bool>();
  layout.square = fields[2].cast<bool>();
  layout.votes = fields[3].cast<bool>();
  return layout;
}

// (target, mask or None, ignore index or None, thresholds, cells, left closed, top-label,
// classwise, eps, statistics, groups, regions or None, number of regions, moments, fine bins,
// entropy bins, entropy bins per nat)
inline Counting counting_from(const py::tuple &fields, std::int64_t classes) {
  Counting counting;
  counting.wanted = true;
  counting.target = view_from(fields[0]);
  if (!fields[1].is_none()) {
    counting.mask = view_from(fields[1]);
  }
  counting.has_ignore_index = !fields[2].is_none();
  counting.ignore_index = counting.has_ignore_index ? fields[2].cast<std::int64_t>() : 0;
  counting.thresholds = address<void>(fields[3]);
  counting.layout.num_classes = classes;
  counting.layout.n_cells = fields[4].cast<std::int64_t>();
  counting.left_closed = fields[5].cast<bool>();
  counting.layout.top_label = fields[6].cast<bool>();
  counting.layout.classwise = fields[7].cast<bool>();
  counting.eps = fields[8].cast<double>();
  counting.statistics = address<std::int64_t>(fields[9]);
  counting.groups = fields[10].cast<std::int64_t>();
  if (!fields[11].is_none()) {
    counting.regions = view_from(fields[11]);
  }
  counting.n_regions = fields[12].cast<int>();
  counting.layout.moments = fields[13].cast<bool>();
  counting.layout.fine_bins = fields[14].cast<std::int64_t>();
  counting.layout.entropy_bins = fields[15].cast<std::int64_t>();
  counting.entropy_scale = fields[16].cast<double>();
  return counting;
}

// (((map, view), ...), normalise, counting or None)
inline Finish finish_from(const py::tuple &fields, std::int64_t classes) {
  Finish finish;
  for (const py::handle &item : py::reinterpret_borrow<py::tuple>(fields[0])) {
    const auto map = py::reinterpret_borrow<py::tuple>(item);
    const auto index = map[0].cast<std::int32_t>();
    expects(index >= 0 && index < kMapCount,
            "maps must be numbered as in fastcal.core.problem.MAPS");
    finish.maps.views[index] = view_from(map[1]);
  }
  finish.normalise = fields[1].cast<bool>();
  if (!fields[2].is_none()) {
    finish.counting = counting_from(py::reinterpret_borrow<py::tuple>(fields[2]), classes);
  }
  return finish;
}

} // namespace fastcal::python
