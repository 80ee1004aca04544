#define FASTCAL_ISA baseline
#define FASTCAL_VECTOR_BYTES 16
#include "cpu/accumulate_kernel.inl"
#include "cpu/finish_kernel.inl"
#include "cpu/transfer_kernel.inl"

namespace fastcal::cpu {

const MapsStage kMapsBaseline = {
    {baseline::load_tile<float>, baseline::store_tile<float>, baseline::to_logits<float>,
     baseline::accumulate<float>, baseline::finish<float>},
    {baseline::load_tile<double>, baseline::store_tile<double>, baseline::to_logits<double>,
     baseline::accumulate<double>, baseline::finish<double>},
    baseline::store_labels,
    baseline::stream_fence,
    baseline::read_words};

} // namespace fastcal::cpu
