#include "cuda/launch.cuh"

namespace fastcal::cuda {

Error launch_f16(const PassArguments &a, const MemberPointers &members, const Place &place) {
  return launch_pass<__half>(a, members, place);
}

} // namespace fastcal::cuda
