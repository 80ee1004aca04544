#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace fastcal::cpu {

namespace {

const Isa kIsas[] = {
#if defined(__x86_64__) && !defined(FASTCAL_WITHOUT_AVX512)
    {"avx512", [] { return __builtin_cpu_supports("x86-64-v4") != 0; }, &kMapsAvx512, &kCountAvx512,
     &kTemperatureAvx512, &kLossAvx512, &kSegmentsAvx512},
#endif
#if defined(__x86_64__) && !defined(FASTCAL_WITHOUT_AVX2)
    {"avx2", [] { return __builtin_cpu_supports("x86-64-v3") != 0; }, &kMapsAvx2, &kCountAvx2,
     &kTemperatureAvx2, &kLossAvx2, &kSegmentsAvx2},
#endif
    {"baseline", [] { return true; }, &kMapsBaseline, &kCountBaseline, &kTemperatureBaseline,
     &kLossBaseline, &kSegmentsBaseline},
};

std::atomic<const Isa *> in_use{nullptr};

const Isa &find(const std::string &name, const char *source) {
  std::string here;
  for (const Isa &isa : kIsas) {
    if (isa.runs_here()) {
      if (name == isa.name) {
        return isa;
      }
      here += here.empty() ? "" : ", ";
      here += isa.name;
    }
  }
  throw std::invalid_argument(std::string(source) +
                              " must be an instruction set that this machine runs (" + here +
                              "), got '" + name + "'");
}

const Isa &choose() {
  const char *name = std::getenv("FASTCAL_ISA");
  if (name != nullptr && *name != '\0') {
    return find(name, "FASTCAL_ISA");
  }
  for (const Isa &isa : kIsas) {
    if (isa.runs_here()) {
      return isa;
    }
  }
  throw std::logic_error("the table of instruction sets is empty");
}

} // namespace

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (const Isa &isa : kIsas) {
    if (isa.runs_here()) {
      names.emplace_back(isa.name);
    }
  }
  return names;
}

const Isa &current_isa() {
  const Isa *isa = in_use.load(std::memory_order_acquire);
  if (isa == nullptr) {
    isa = &choose();
    in_use.store(isa, std::memory_order_release);
  }
  return *isa;
}

void set_isa(const std::string &name) {
  in_use.store(&find(name, "isa"), std::memory_order_release);
}

} // namespace fastcal::cpu
