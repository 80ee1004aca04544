#define FASTCAL_ISA avx512
#define FASTCAL_VECTOR_BYTES 64
#include "cpu/temperature_kernel.inl"

namespace fastcal::cpu {

const TemperatureStage kTemperatureAvx512 = {
    {avx512::finite_logits<float>, avx512::add_temperature<float>},
    {avx512::finite_logits<double>, avx512::add_temperature<double>}};

} // namespace fastcal::cpu
