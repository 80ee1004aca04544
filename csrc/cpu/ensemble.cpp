#include "cpu/ensemble.h"

#include <utility>

#include "core/expects.h"
#include "cpu/pass.h"

namespace fastcal::cpu {

namespace {

void run(Dtype dtype, PassProblem problem, const std::vector<std::int64_t> &shape, int n_threads) {
  with_real(dtype,
            [&](auto real) { Pass<decltype(real)>(std::move(problem), shape).run(n_threads); });
}

} // namespace

void ensemble_statistics(const std::vector<std::int64_t> &shape, std::int64_t classes,
                         const Members &members, const Reading &reading, const Finish &finish,
                         int n_threads) {
  expects(!members.views.empty(), "members must hold at least one tensor");
  PassProblem problem;
  problem.reading = reading;
  problem.classes = classes;
  problem.members = members;
  problem.layout = state_layout_for(finish.maps, classes);
  problem.totals = {static_cast<std::int64_t>(members.views.size()), 0.0};
  for (const double weight : members.weights) {
    problem.totals.weight += weight;
  }
  problem.finish = finish;
  run(members.views.front().dtype, std::move(problem), shape, n_threads);
}

void ensemble_accumulate(const std::vector<std::int64_t> &shape, const View &member, double weight,
                         double temperature, const Reading &reading, const StateLayout &layout,
                         const View &state, int n_threads) {
  PassProblem problem;
  problem.reading = reading;
  problem.classes = layout.num_classes;
  problem.members = {{member}, {weight}, {temperature}};
  problem.state = state;
  problem.layout = layout;
  problem.finishes = false;
  run(member.dtype, std::move(problem), shape, n_threads);
}

void ensemble_finalize(const std::vector<std::int64_t> &shape, const View &state,
                       const StateLayout &layout, const MemberTotals &totals,
                       const Reading &reading, const Finish &finish, int n_threads) {
  PassProblem problem;
  problem.reading = reading;
  problem.classes = layout.num_classes;
  problem.state = state;
  problem.layout = layout;
  problem.totals = totals;
  problem.finish = finish;
  run(state.dtype, std::move(problem), shape, n_threads);
}

} // namespace fastcal::cpu
