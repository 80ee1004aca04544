#include "cuda/launch.cuh"

namespace fastcal::cuda {

Error launch_f32(const PassArguments &a, const MemberPointers &members, const Place &place) {
  return launch_pass<float>(a, members, place);
}

} // namespace fastcal::cuda
