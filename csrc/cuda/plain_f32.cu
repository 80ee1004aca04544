#include "cuda/plain_launch.cuh"

namespace fastcal::cuda {

Error launch_plain_f32(const PassArguments &a, const MemberPointers &members, const Place &place) {
  return launch_plain<float>(a, members, place);
}

} // namespace fastcal::cuda
