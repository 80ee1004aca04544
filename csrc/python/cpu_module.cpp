// The module fastcal._cpu: it takes addresses, extents and strides, and the caller allocates.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/ensemble.h"
#include "cpu/isa.h"
#include "cpu/loss.h"
#include "cpu/segment_shapes.h"
#include "cpu/segments.h"
#include "cpu/temperature.h"
#include "cpu/thread_pool.h"
#include "python/loss_input.h"
#include "python/segment_problem.h"
#include "python/temperature_problem.h"
#include "python/views.h"

namespace fastcal::python {

namespace {

void ensemble_statistics(const py::tuple &shape, std::int64_t classes, const py::tuple &views,
                         const std::vector<double> &weights,
                         const std::vector<double> &temperatures, const py::tuple &reading,
                         const py::tuple &finish, int n_threads) {
  cpu::Members members;
  for (const py::handle &view : views) {
    members.views.push_back(view_from(view));
  }
  members.weights = weights;
  members.temperatures = temperatures;
  const auto extents = shape_from(shape);
  const Reading how = reading_from(reading);
  const Finish what = finish_from(finish, classes);
  const py::gil_scoped_release release;
  cpu::ensemble_statistics(extents, classes, members, how, what, n_threads);
}

void ensemble_accumulate(const py::tuple &shape, const py::tuple &member, double weight,
                         double temperature, const py::tuple &reading, const py::tuple &layout,
                         const py::tuple &state, int n_threads) {
  const auto extents = shape_from(shape);
  const View from = view_from(member);
  const View to = view_from(state);
  const Reading how = reading_from(reading);
  const StateLayout planes = state_layout_from(layout);
  const py::gil_scoped_release release;
  cpu::ensemble_accumulate(extents, from, weight, temperature, how, planes, to, n_threads);
}

void ensemble_finalize(const py::tuple &shape, const py::tuple &state, const py::tuple &layout,
                       std::int64_t n_members, double total_weight, const py::tuple &reading,
                       const py::tuple &finish, int n_threads) {
  const auto extents = shape_from(shape);
  const View from = view_from(state);
  const StateLayout planes = state_layout_from(layout);
  const Reading how = reading_from(reading);
  const Finish what = finish_from(finish, planes.num_classes);
  const py::gil_scoped_release release;
  cpu::ensemble_finalize(extents, from, planes, {n_members, total_weight}, how, what, n_threads);
}

void temperature_sums(const py::tuple &shape, const py::tuple &fields,
                      const std::vector<double> &inverse_temperatures, bool per_class,
                      std::uintptr_t counts, std::uintptr_t sums, int n_threads) {
  TemperatureProblem problem = temperature_problem_from(fields);
  problem.per_class = per_class;
  problem.inverse_temperatures = inverse_temperatures.data();
  problem.counts = reinterpret_cast<std::int64_t *>(counts);
  problem.sums = reinterpret_cast<double *>(sums);
  const auto extents = shape_from(shape);
  const py::gil_scoped_release release;
  cpu::temperature_sums(extents, problem, n_threads);
}

void class_sums(const py::tuple &input, const py::tuple &wanted, std::uintptr_t sums,
                int n_threads) {
  const LossInput what = loss_input_from(input);
  const SumsWanted which = sums_wanted_from(wanted);
  const py::gil_scoped_release release;
  cpu::class_sums(what, which, reinterpret_cast<double *>(sums), n_threads);
}

void class_gradient(const py::tuple &input, const py::tuple &wanted, std::uintptr_t factors,
                    const py::tuple &gradient, int n_threads) {
  const LossInput what = loss_input_from(input);
  const SumsWanted which = sums_wanted_from(wanted);
  const View to = view_from(gradient);
  const py::gil_scoped_release release;
  cpu::class_gradient(what, which, reinterpret_cast<const double *>(factors), to, n_threads);
}

void bin_gaps(const py::tuple &input, std::int64_t n_bins, bool soft, std::uintptr_t thresholds,
              std::uintptr_t sums, int n_threads) {
  const LossInput what = loss_input_from(input);
  const py::gil_scoped_release release;
  cpu::bin_gaps(what, {n_bins, soft}, reinterpret_cast<const void *>(thresholds),
                reinterpret_cast<double *>(sums), n_threads);
}

void bin_gradient(const py::tuple &input, std::int64_t n_bins, bool soft, std::uintptr_t thresholds,
                  std::uintptr_t factors, const py::tuple &gradient, int n_threads) {
  const LossInput what = loss_input_from(input);
  const View to = view_from(gradient);
  const py::gil_scoped_release release;
  cpu::bin_gradient(what, {n_bins, soft}, reinterpret_cast<const void *>(thresholds),
                    reinterpret_cast<const double *>(factors), to, n_threads);
}

void segment_sums(const py::tuple &shape, const py::tuple &fields, std::uintptr_t sums,
                  int n_threads) {
  const SegmentProblem problem = segment_problem_from(fields, sums);
  const auto extents = shape_from(shape);
  const py::gil_scoped_release release;
  cpu::segment_sums(extents, problem, n_threads);
}

using Address = std::uintptr_t;
using Shape = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

cpu::Extents extents_from(const Shape &extents) {
  const auto &[planes, lines, length] = extents;
  return {planes, lines, length};
}

void interior(Address labels, const Shape &extents, int limit, std::int64_t reach, Address inside,
              int n_threads) {
  const py::gil_scoped_release release;
  cpu::interior(reinterpret_cast<const std::uint8_t *>(labels), extents_from(extents), limit, reach,
                reinterpret_cast<std::uint8_t *>(inside), n_threads);
}

template <typename Real>
void patch_maxima(Address values, Address labels, const Shape &extents, std::int64_t classes,
                  std::int64_t size, bool multilabel, Address sums, Address largest,
                  int n_threads) {
  const py::gil_scoped_release release;
  cpu::patch_maxima({reinterpret_cast<const Real *>(values),
                     reinterpret_cast<const std::uint8_t *>(labels), extents_from(extents), classes,
                     size, multilabel, reinterpret_cast<Real *>(sums),
                     reinterpret_cast<double *>(largest)},
                    n_threads);
}

void count_components(Address labels, const Shape &extents, std::int64_t classes,
                      std::int64_t smallest, Address counts) {
  const py::gil_scoped_release release;
  cpu::count_components(reinterpret_cast<const std::uint8_t *>(labels), extents_from(extents),
                        classes, smallest, reinterpret_cast<std::int64_t *>(counts));
}

void overlaps(const std::vector<Address> &labels, std::int64_t voxels, std::int64_t classes,
              Address found, int n_threads) {
  std::vector<const std::uint8_t *> members;
  for (const Address address : labels) {
    members.push_back(reinterpret_cast<const std::uint8_t *>(address));
  }
  const py::gil_scoped_release release;
  cpu::overlaps(members, voxels, classes, reinterpret_cast<std::int64_t *>(found), n_threads);
}

// Reads memory and does nothing else: benchmarks compare the kernels with the time this takes.
std::uint64_t read_bytes(std::uintptr_t data, std::int64_t n_bytes, int n_threads) {
  const py::gil_scoped_release release;
  const auto *words = reinterpret_cast<const std::uint64_t *>(data);
  const std::int64_t n_words = n_bytes / 8;
  constexpr std::int64_t kChunk = 1 << 15;
  std::atomic<std::uint64_t> all{0};
  const auto &isa = cpu::current_isa();
  cpu::parallel_for((n_words + kChunk - 1) / kChunk, n_threads, [&](std::int64_t chunk) {
    const std::int64_t first = chunk * kChunk;
    all ^= isa.maps->read(words + first, std::min(kChunk, n_words - first));
  });
  return all;
}

} // namespace

PYBIND11_MODULE(_cpu, module, py::mod_gil_not_used()) {
  module.doc() = "The CPU backend of fastcal; called by fastcal.backends.cpu.";
  module.def("ensemble_statistics", &ensemble_statistics);
  module.def("ensemble_accumulate", &ensemble_accumulate);
  module.def("ensemble_finalize", &ensemble_finalize);
  module.def("temperature_sums", &temperature_sums);
  module.def("class_sums", &class_sums);
  module.def("class_gradient", &class_gradient);
  module.def("bin_gaps", &bin_gaps);
  module.def("bin_gradient", &bin_gradient);
  module.def("segment_sums", &segment_sums);
  module.def("interior", &interior);
  module.def("patch_maxima_f32", &patch_maxima<float>);
  module.def("patch_maxima_f64", &patch_maxima<double>);
  module.def("count_components", &count_components);
  module.def("overlaps", &overlaps);
  module.def("read_bytes", &read_bytes, py::arg("address"), py::arg("n_bytes"),
             py::arg("n_threads"), "XOR of the 64-bit words at an address, by vector reads.");
  module.def(
      "isa", [] { return std::string(cpu::current_isa().name); },
      "Name of the instruction set in use.");
  module.def("isa_levels", &cpu::isa_levels,
             "Names of the instruction sets this machine runs, best first.");
  module.def("set_isa", &cpu::set_isa, py::arg("name"), "Force an instruction set by name.");
}

} // namespace fastcal::python
