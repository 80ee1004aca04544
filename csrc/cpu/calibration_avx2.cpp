#define FASTCAL_ISA avx2
#define FASTCAL_VECTOR_BYTES 32
#include "cpu/calibration_kernel.inl"

namespace fastcal::cpu {

const CountStage kCountAvx2 = {avx2::load_target, avx2::count<float>, avx2::count<double>};

} // namespace fastcal::cpu
