// Which of the competing ways members reach a plain pass is used.
#pragma once

#include "cuda/policy.h"

namespace fastcal::cuda {

// kDelivery, or what was chosen last.
Delivery delivery();

// For the whole process, so that a benchmark can time one after the other.
void set_delivery(Delivery chosen);

} // namespace fastcal::cuda
