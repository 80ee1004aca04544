#include "cuda/plain_launch.cuh"

namespace fastcal::cuda {

Error launch_plain_bf16(const PassArguments &a, const MemberPointers &members, const Place &place) {
  return launch_plain<__nv_bfloat16>(a, members, place);
}

} // namespace fastcal::cuda
