#define FASTCAL_ISA avx2
#define FASTCAL_VECTOR_BYTES 32
#include "cpu/segments_kernel.inl"

namespace fastcal::cpu {

const SegmentStage kSegmentsAvx2 = {avx2::add_segments<float>, avx2::add_segments<double>};

} // namespace fastcal::cpu
