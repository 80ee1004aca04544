#define FASTCAL_ISA baseline
#define FASTCAL_VECTOR_BYTES 16
#include "cpu/bin_gaps_kernel.inl"
#include "cpu/class_sums_kernel.inl"
#include "cpu/half_store.h"
#include "cpu/loss_target.h"

namespace fastcal::cpu {

const LossStage kLossBaseline = {{baseline::class_sums<float>, baseline::class_gradient<float>,
                                  baseline::bin_gaps<float>, baseline::bin_gradient<float>},
                                 {baseline::class_sums<double>, baseline::class_gradient<double>,
                                  baseline::bin_gaps<double>, baseline::bin_gradient<double>},
                                 baseline::load_labels,
                                 baseline::store_halves};

} // namespace fastcal::cpu
