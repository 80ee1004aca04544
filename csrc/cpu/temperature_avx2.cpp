#define FASTCAL_ISA avx2
#define FASTCAL_VECTOR_BYTES 32
#include "cpu/temperature_kernel.inl"

namespace fastcal::cpu {

const TemperatureStage kTemperatureAvx2 = {
    {avx2::finite_logits<float>, avx2::add_temperature<float>},
    {avx2::finite_logits<double>, avx2::add_temperature<double>}};

} // namespace fastcal::cpu
