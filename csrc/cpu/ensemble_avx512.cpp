#define FASTCAL_ISA avx512
#define FASTCAL_VECTOR_BYTES 64
#include "cpu/accumulate_kernel.inl"
#include "cpu/finish_kernel.inl"
#include "cpu/transfer_kernel.inl"

namespace fastcal::cpu {

const MapsStage kMapsAvx512 = {
    {avx512::load_tile<float>, avx512::store_tile<float>, avx512::to_logits<float>,
     avx512::accumulate<float>, avx512::finish<float>},
    {avx512::load_tile<double>, avx512::store_tile<double>, avx512::to_logits<double>,
     avx512::accumulate<double>, avx512::finish<double>},
    avx512::store_labels,
    avx512::stream_fence,
    avx512::read_words};

} // namespace fastcal::cpu
