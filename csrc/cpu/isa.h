// The instruction sets that the package was compiled for, best first, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/loss_kernels.h"
#include "cpu/segment_block.h"
#include "cpu/temperature_block.h"

namespace fastcal::cpu {

struct Isa {
  const char *name;
  bool (*runs_here)();
  const MapsStage *maps;
  const CountStage *counts;
  const TemperatureStage *temperature;
  const LossStage *losses;
  const SegmentStage *segments;
};

// Names of the instruction sets that this machine runs, best first.
std::vector<std::string> isa_levels();

// The instruction set in use: the best one, unless FASTCAL_ISA or set_isa named another.
const Isa &current_isa();

// Throws std::invalid_argument for a name that is unknown or does not run here.
void set_isa(const std::string &name);

} // namespace fastcal::cpu
