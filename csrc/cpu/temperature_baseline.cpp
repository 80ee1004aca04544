#define FASTCAL_ISA baseline
#define FASTCAL_VECTOR_BYTES 16
#include "cpu/temperature_kernel.inl"

namespace fastcal::cpu {

const TemperatureStage kTemperatureBaseline = {
    {baseline::finite_logits<float>, baseline::add_temperature<float>},
    {baseline::finite_logits<double>, baseline::add_temperature<double>}};

} // namespace fastcal::cpu
