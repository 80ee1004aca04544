// What a pass over predicted segments reads, and the integers it adds to. Mirrors
// fastcal/core/segment_problem.py.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fastcal {

// The words of one batch item and class. A real sum is hi + lo * 2^-40.
namespace segment_word {
constexpr int kVoxels = 0;   // of the segment
constexpr int kInterior = 1; // of the segment, inside the mask
constexpr int kVotes = 2;
constexpr int kVotePairs = 3; // sum of v (v - 1)
constexpr int kBadLabel = 4;  // in the row of the first class only
constexpr int kBadMean = 5;
constexpr int kBadEntropy = 6;
constexpr int kBadInformation = 7;
constexpr int kSoft = 8;        // hi, lo: sum of p over all voxels
constexpr int kConfidence = 10; // hi, lo: sum of p over the segment, as are the next ones
constexpr int kBinaryEntropy = 12;
constexpr int kEntropy = 14;
constexpr int kInformation = 16;
constexpr int kInteriorEntropy = 18; // hi, lo: over the interior of the segment
constexpr int kWords = 20;
constexpr int kReals = (kWords - kSoft) / 2;
} // namespace segment_word

// How far outside [0, 1] a probability may lie. Interpolation does this.
constexpr double kOutOfRange = 1e-3;

// Entropies must lie between these, so that fixed point holds them. They are above 0 but for
// rounding.
constexpr double kLeastEntropy = -1.0;
constexpr double kMostEntropy = 1024.0;

// The clip of the paper's code: p below kClipLow is read as kClippedLow, and above kClipHigh as
// kClippedHigh.
constexpr double kClipLow = 0.01;
constexpr double kClippedLow = 0.001;
constexpr double kClipHigh = 0.99;
constexpr double kClippedHigh = 0.999;

struct SegmentProblem {
  View mean;        // [classes] of the voxel shape
  View label;       // of the voxel shape, and [classes] of it when multilabel
  View entropy;     // of the voxel shape; data is null where absent, as are the next three
  View information; // of the voxel shape
  View votes;       // [classes] of the voxel shape, whole numbers
  View interior;    // bool, of the shape of the labels
  std::int64_t classes = 0;
  bool multilabel = false;
  bool has_ignore_index = false;
  std::int64_t ignore_index = 0; // such voxels belong to nothing
  bool binary = false;           // sum the binary entropies
  bool clip = false;             // as the paper's code does
  std::int64_t *sums = nullptr;  // added to: [outermost voxel axis][classes][segment_word::kWords]
};

} // namespace fastcal
