#include "cuda/launch.cuh"

namespace fastcal::cuda {

Error launch_bf16(const PassArguments &a, const MemberPointers &members, const Place &place) {
  return launch_pass<__nv_bfloat16>(a, members, place);
}

} // namespace fastcal::cuda
