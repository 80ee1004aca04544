#include "cpu/ensemble.h"

#include "core/expects.h"
#include "cpu/pass.h"

namespace fastcal::cpu {

namespace {

StateLayout state_for(const Finish &finish, std::int64_t classes) {
  StateLayout layout;
  layout.num_classes = classes;
  layout.entropy =
      finish.maps.wants(Map::kExpectedEntropy) || finish.maps.wants(Map::kMutualInformation);
  layout.square = finish.maps.wants(Map::kVariance);
  layout.votes = finish.maps.wants(Map::kDisagreement);
  return layout;
}

template <typename Function> void with_real(Dtype dtype, const Function &function) {
  if (dtype == Dtype::kFloat64) {
    function(double{});
  } else {
    function(float{});
  }
}

} // namespace

void ensemble_statistics(const std::vector<std::int64_t> &shape, std::int64_t classes,
                         const Members &members, const Reading &reading, const Finish &finish,
                         int n_threads) {
  expects(!members.views.empty(), "no members");
  with_real(members.views.front().dtype, [&](auto real) {
    Pass<decltype(real)> pass(reading, classes);
    pass.members = members;
    pass.state_layout = state_for(finish, classes);
    pass.n_members = static_cast<std::int64_t>(members.views.size());
    pass.total_weight = 0.0;
    for (const double weight : members.weights) {
      pass.total_weight += weight;
    }
    pass.finish = finish;
    pass.run(shape, n_threads);
  });
}

void ensemble_accumulate(const std::vector<std::int64_t> &shape, const View &member, double weight,
                         double temperature, const Reading &reading, const StateLayout &layout,
                         const View &state, int n_threads) {
  with_real(member.dtype, [&](auto real) {
    Pass<decltype(real)> pass(reading, layout.num_classes);
    pass.members = {{member}, {weight}, {temperature}};
    pass.state = state;
    pass.state_layout = layout;
    pass.finishes = false;
    pass.run(shape, n_threads);
  });
}

void ensemble_finalize(const std::vector<std::int64_t> &shape, const View &state,
                       const StateLayout &layout, std::int64_t n_members, double total_weight,
                       const Reading &reading, const Finish &finish, int n_threads) {
  with_real(state.dtype, [&](auto real) {
    Pass<decltype(real)> pass(reading, layout.num_classes);
    pass.state = state;
    pass.state_layout = layout;
    pass.n_members = n_members;
    pass.total_weight = total_weight;
    pass.finish = finish;
    pass.run(shape, n_threads);
  });
}

} // namespace fastcal::cpu
