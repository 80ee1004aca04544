#define FASTCAL_ISA avx2
#define FASTCAL_VECTOR_BYTES 32
#include "cpu/bin_gaps_kernel.inl"
#include "cpu/class_sums_kernel.inl"
#include "cpu/half_store.h"
#include "cpu/loss_target.h"

namespace fastcal::cpu {

const LossStage kLossAvx2 = {{avx2::class_sums<float>, avx2::class_gradient<float>,
                              avx2::bin_gaps<float>, avx2::bin_gradient<float>},
                             {avx2::class_sums<double>, avx2::class_gradient<double>,
                              avx2::bin_gaps<double>, avx2::bin_gradient<double>},
                             avx2::load_labels,
                             avx2::store_halves};

} // namespace fastcal::cpu
