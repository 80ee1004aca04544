#define FASTCAL_ISA avx512
#define FASTCAL_VECTOR_BYTES 64
#include "cpu/segments_kernel.inl"

namespace fastcal::cpu {

const SegmentStage kSegmentsAvx512 = {avx512::add_segments<float>, avx512::add_segments<double>};

} // namespace fastcal::cpu
