#include "cuda/launch.cuh"

namespace fastcal::cuda {

Error launch_f64(const PassArguments &a, const MemberPointers &members, const Place &place) {
  return launch_pass<double>(a, members, place);
}

} // namespace fastcal::cuda
