#define FASTCAL_ISA avx512
#define FASTCAL_VECTOR_BYTES 64
#include "cpu/calibration_kernel.inl"

namespace fastcal::cpu {

const CountStage kCountAvx512 = {avx512::load_target, avx512::count<float>, avx512::count<double>};

} // namespace fastcal::cpu
