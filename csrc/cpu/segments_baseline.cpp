#define FASTCAL_ISA baseline
#define FASTCAL_VECTOR_BYTES 16
#include "cpu/segments_kernel.inl"

namespace fastcal::cpu {

const SegmentStage kSegmentsBaseline = {baseline::add_segments<float>,
                                        baseline::add_segments<double>};

} // namespace fastcal::cpu
