#define FASTCAL_ISA avx2
#define FASTCAL_VECTOR_BYTES 32
#include "cpu/accumulate_kernel.inl"
#include "cpu/finish_kernel.inl"
#include "cpu/transfer_kernel.inl"

namespace fastcal::cpu {

const MapsStage kMapsAvx2 = {{avx2::load_tile<float>, avx2::store_tile<float>,
                              avx2::to_logits<float>, avx2::accumulate<float>, avx2::finish<float>},
                             {avx2::load_tile<double>, avx2::store_tile<double>,
                              avx2::to_logits<double>, avx2::accumulate<double>,
                              avx2::finish<double>},
                             avx2::store_labels,
                             avx2::stream_fence,
                             avx2::read_words};

} // namespace fastcal::cpu
