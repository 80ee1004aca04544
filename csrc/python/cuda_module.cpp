// The module fastcal._cuda: it takes addresses, extents, strides and a stream, and the caller
// allocates.
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/delivery.h"
#include "cuda/device.h"
#include "cuda/ensemble.h"
#include "cuda/loss.h"
#include "cuda/segments.h"
#include "cuda/temperature.h"
#include "python/loss_input.h"
#include "python/segment_problem.h"
#include "python/temperature_problem.h"
#include "python/views.h"

#ifndef FASTCAL_CUDA_MODULE
#define FASTCAL_CUDA_MODULE _cuda
#endif

namespace fastcal::python {

namespace {

// (device, stream, workspace address, workspace bytes)
cuda::Place place_from(const py::tuple &fields) {
  cuda::Place place;
  place.device = fields[0].cast<int>();
  place.stream = address<void>(fields[1]);
  place.workspace = address<void>(fields[2]);
  place.workspace_bytes = fields[3].cast<std::int64_t>();
  return place;
}

void raise(const cuda::Error &error) {
  if (error) {
    throw std::runtime_error("CUDA error " + std::to_string(error.code) + ": " + error.reason);
  }
}

// The thresholds lie on the host, in the accumulation type; both types are handed on as double.
std::vector<double> thresholds_from(const Finish &finish, Dtype real) {
  const Counting &counting = finish.counting;
  if (!counting.wanted) {
    return {};
  }
  const auto count = static_cast<std::size_t>(counting.layout.n_cells - 1);
  if (real == Dtype::kFloat64) {
    const auto *values = static_cast<const double *>(counting.thresholds);
    return {values, values + count};
  }
  const auto *values = static_cast<const float *>(counting.thresholds);
  return {values, values + count};
}

void ensemble_statistics(const py::tuple &shape, std::int64_t classes, const py::tuple &view,
                         const std::vector<std::uintptr_t> &addresses,
                         const std::vector<double> &weights,
                         const std::vector<double> &temperatures, const py::tuple &reading,
                         const py::tuple &finish, const py::tuple &place) {
  cuda::Members members;
  members.view = view_from(view);
  for (const std::uintptr_t member : addresses) {
    members.addresses.push_back(reinterpret_cast<void *>(member));
  }
  members.weights = weights;
  members.temperatures = temperatures;
  const auto extents = shape_from(shape);
  const Reading how = reading_from(reading);
  const Finish what = finish_from(finish, classes);
  const auto thresholds = thresholds_from(what, members.view.dtype);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::ensemble_statistics(extents, classes, members, how, what, thresholds.data(), where));
}

void ensemble_accumulate(const py::tuple &shape, const py::tuple &member, double weight,
                         double temperature, const py::tuple &reading, const py::tuple &layout,
                         const py::tuple &state, const py::tuple &place) {
  cuda::Members members;
  members.view = view_from(member);
  members.addresses = {members.view.data};
  members.weights = {weight};
  members.temperatures = {temperature};
  const auto extents = shape_from(shape);
  const View to = view_from(state);
  const Reading how = reading_from(reading);
  const StateLayout planes = state_layout_from(layout);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::ensemble_accumulate(extents, members, how, planes, to, where));
}

void ensemble_finalize(const py::tuple &shape, const py::tuple &state, const py::tuple &layout,
                       std::int64_t n_members, double total_weight, const py::tuple &reading,
                       const py::tuple &finish, const py::tuple &place) {
  const auto extents = shape_from(shape);
  const View from = view_from(state);
  const StateLayout planes = state_layout_from(layout);
  const Reading how = reading_from(reading);
  const Finish what = finish_from(finish, planes.num_classes);
  const auto thresholds = thresholds_from(what, from.dtype);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::ensemble_finalize(extents, from, planes, {n_members, total_weight}, how, what,
                                thresholds.data(), where));
}

void segment_sums(const py::tuple &shape, const py::tuple &fields, std::uintptr_t sums,
                  const py::tuple &place) {
  const SegmentProblem problem = segment_problem_from(fields, sums);
  const auto extents = shape_from(shape);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::segment_sums(extents, problem, where));
}

void temperature_sums(const py::tuple &shape, const py::tuple &fields,
                      const std::vector<double> &inverse_temperatures, bool per_class,
                      std::uintptr_t counts, std::uintptr_t sums, const py::tuple &place) {
  TemperatureProblem problem = temperature_problem_from(fields);
  problem.per_class = per_class;
  problem.inverse_temperatures = inverse_temperatures.data();
  problem.counts = reinterpret_cast<std::int64_t *>(counts);
  problem.sums = reinterpret_cast<double *>(sums);
  const auto extents = shape_from(shape);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::temperature_sums(extents, problem, where));
}

void class_sums(const py::tuple &input, const py::tuple &wanted, std::uintptr_t sums,
                const py::tuple &place) {
  const LossInput what = loss_input_from(input);
  const SumsWanted which = sums_wanted_from(wanted);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::class_sums(what, which, reinterpret_cast<double *>(sums), where));
}

void class_gradient(const py::tuple &input, const py::tuple &wanted, std::uintptr_t factors,
                    const py::tuple &gradient, const py::tuple &place) {
  const LossInput what = loss_input_from(input);
  const SumsWanted which = sums_wanted_from(wanted);
  const View to = view_from(gradient);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::class_gradient(what, which, reinterpret_cast<const double *>(factors), to, where));
}

void bin_gaps(const py::tuple &input, std::int64_t n_bins, bool soft, std::uintptr_t thresholds,
              std::uintptr_t sums, const py::tuple &place) {
  const LossInput what = loss_input_from(input);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::bin_gaps(what, {n_bins, soft}, reinterpret_cast<const void *>(thresholds),
                       reinterpret_cast<double *>(sums), where));
}

void bin_gradient(const py::tuple &input, std::int64_t n_bins, bool soft, std::uintptr_t thresholds,
                  std::uintptr_t factors, const py::tuple &gradient, const py::tuple &place) {
  const LossInput what = loss_input_from(input);
  const View to = view_from(gradient);
  const cuda::Place where = place_from(place);
  const py::gil_scoped_release release;
  raise(cuda::bin_gradient(what, {n_bins, soft}, reinterpret_cast<const void *>(thresholds),
                           reinterpret_cast<const double *>(factors), to, where));
}

std::int64_t loss_workspace_bytes(const py::tuple &input, std::int64_t words) {
  return cuda::loss_workspace_bytes(loss_input_from(input), words);
}

std::int64_t workspace_bytes(int device, std::int64_t classes, std::int64_t planes,
                             std::int64_t n_members, std::int64_t n_cells, std::int64_t rows,
                             bool wide) {
  cuda::Size size;
  size.classes = classes;
  size.planes = planes;
  size.n_members = n_members;
  size.n_cells = n_cells;
  size.rows = rows;
  size.dtype = wide ? Dtype::kFloat64 : Dtype::kFloat32;
  std::int64_t bytes = 0;
  raise(cuda::workspace_bytes(device, size, &bytes));
  return bytes;
}

constexpr const char *kVariants[] = {"loads", "ring", "persistent"}; // as cuda::Delivery

std::vector<std::string> variants() { return {std::begin(kVariants), std::end(kVariants)}; }

std::string variant() { return kVariants[static_cast<int>(cuda::delivery())]; }

void set_variant(const std::string &name) {
  const auto *const found = std::find(std::begin(kVariants), std::end(kVariants), name);
  if (found == std::end(kVariants)) {
    throw std::invalid_argument("variant must be loads, ring or persistent, got " + name);
  }
  cuda::set_delivery(static_cast<cuda::Delivery>(found - std::begin(kVariants)));
}

} // namespace

PYBIND11_MODULE(FASTCAL_CUDA_MODULE, module, py::mod_gil_not_used()) {
  module.doc() = "The CUDA backend of fastcal; called by fastcal.backends.cuda.";
  module.def("ensemble_statistics", &ensemble_statistics);
  module.def("ensemble_accumulate", &ensemble_accumulate);
  module.def("ensemble_finalize", &ensemble_finalize);
  module.def("segment_sums", &segment_sums);
  module.def("temperature_sums", &temperature_sums);
  module.def("class_sums", &class_sums);
  module.def("class_gradient", &class_gradient);
  module.def("bin_gaps", &bin_gaps);
  module.def("bin_gradient", &bin_gradient);
  module.def("loss_workspace_bytes", &loss_workspace_bytes, py::arg("input"), py::arg("words"),
             "Bytes of device memory for sums of so many words per image.");
  module.def("temperature_workspace_bytes", &cuda::temperature_workspace_bytes, py::arg("voxels"),
             py::arg("classes"), py::arg("per_class"));
  module.def("workspace_bytes", &workspace_bytes, py::arg("device"), py::arg("classes"),
             py::arg("planes"), py::arg("n_members"), py::arg("n_cells"), py::arg("rows"),
             py::arg("wide"),
             "Bytes of device memory that a pass of this size wants; 0 for all but large ones.");
  module.def("variants", &variants, "The competing ways in which members reach a plain pass.");
  module.def("variant", &variant);
  module.def("set_variant", &set_variant, py::arg("name"), "For the whole process.");
  module.def("unavailable", &cuda::unavailable,
             "Empty, or why no GPU here can run the kernels. Touches the driver.");
}

} // namespace fastcal::python
