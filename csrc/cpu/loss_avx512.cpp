#define FASTCAL_ISA avx512
#define FASTCAL_VECTOR_BYTES 64
#include "cpu/bin_gaps_kernel.inl"
#include "cpu/class_sums_kernel.inl"
#include "cpu/half_store.h"
#include "cpu/loss_target.h"

namespace fastcal::cpu {

const LossStage kLossAvx512 = {{avx512::class_sums<float>, avx512::class_gradient<float>,
                                avx512::bin_gaps<float>, avx512::bin_gradient<float>},
                               {avx512::class_sums<double>, avx512::class_gradient<double>,
                                avx512::bin_gaps<double>, avx512::bin_gradient<double>},
                               avx512::load_labels,
                               avx512::store_halves};

} // namespace fastcal::cpu
