#define FASTCAL_ISA baseline
#define FASTCAL_VECTOR_BYTES 16
#include "cpu/calibration_kernel.inl"

namespace fastcal::cpu {

const CountStage kCountBaseline = {baseline::load_target, baseline::count<float>,
                                   baseline::count<double>};

} // namespace fastcal::cpu
