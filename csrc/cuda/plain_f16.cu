#include "cuda/plain_launch.cuh"

namespace fastcal::cuda {

Error launch_plain_f16(const PassArguments &a, const MemberPointers &members, const Place &place) {
  return launch_plain<__half>(a, members, place);
}

} // namespace fastcal::cuda
