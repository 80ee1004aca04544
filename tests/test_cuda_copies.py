"""The copies that run ahead of a plain pass, executed without a GPU (tests/cpp/cuda_shim).

There a copy lands when its lane waits for it. Until then its place holds NaN, so that a wait or a
barrier that is missing gives wrong numbers.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cuda_shim
import pytest

# One warp takes the members of three tiles of one odd row through a ring, and adds them up.
PROGRAM = """
#include "cuda_runtime.h"
#include "cuda/feed.cuh"
#include <vector>
using namespace fastcal::cuda;
constexpr int kC = 3, kV = 4, kMembers = 5, kVoxels = 300, kPlane = 301;
float *result = nullptr;

void kernel(const PassArguments a) {
  const int lane = static_cast<int>(threadIdx.x);
  Feed<float, kC, kV> feed(a, shared_memory(), lane);
  feed.open(0, 0);
  for (unsigned i = 0; i < a.tiles; ++i) {
    const int first = static_cast<int>(i) * 32 * kV;
    const int count = kVoxels - first < 32 * kV ? kVoxels - first : 32 * kV;
    const Source<kV> from = feed.source(first, count);
    for (int m = 0; m < kMembers; ++m) {
      Numbers<float, kC, kV> z;
      feed.take(member_of(a, m), from, nullptr, z);
      for (int k = 0; k < kC; ++k) {
        for (int v = 0; v < kV; ++v) {
          const int slot = a.vector ? lane * kV + v : lane + 32 * v;
          if (slot < count) {
            result[k * kVoxels + first + slot] += (m + 1) * z.words[k][v].elements[0];
          }
        }
      }
    }
  }
  feed.close();
}

int main(int arguments, char **) {
  const int shift = arguments > 1 ? 1 : 0;
  PassArguments a;
  a.grid.axes = 1;
  a.grid.extents[0] = a.group_voxels = kVoxels;
  a.tiles = 3;
  a.classes = kC;
  a.n_members = kMembers;
  a.copies_ahead = a.runs = true;
  a.vector = shift == 0;
  a.member.strides[0] = 1;
  a.member.class_stride = kPlane - 1 + shift;
  std::vector<std::vector<float>> members;
  for (int m = 0; m < kMembers; ++m) {
    members.emplace_back(kC * kPlane + 8);
    for (std::size_t i = 0; i < members[m].size(); ++i) {
      members[m][i] = static_cast<float>(m * 7 + static_cast<int>(i) % 97);
    }
    auto at = reinterpret_cast<std::uintptr_t>(members[m].data());
    a.members[m].data = reinterpret_cast<float *>((at + 15) / 16 * 16) + shift;
  }
  std::vector<float> sums(kC * kVoxels), expected(kC * kVoxels);
  result = sums.data();
  for (int k = 0; k < kC; ++k) {
    for (int i = 0; i < kVoxels; ++i) {
      for (int m = 0; m < kMembers; ++m) {
        expected[k * kVoxels + i] +=
            (m + 1) * static_cast<const float *>(a.members[m].data)[k * a.member.class_stride + i];
      }
    }
  }
  const auto bytes = Feed<float, kC, kV>::kStages * stage_bytes(4, kC, kV);
  cudaLaunchConfig_t config{dim3(1), dim3(32), static_cast<std::size_t>(bytes), nullptr};
  if (cudaLaunchKernelEx(&config, kernel, a) != cudaSuccess) {
    return 2;
  }
  return sums == expected ? 0 : 1;
}
"""
WAIT = "    wait_for_copies<kStages - 1>();\n"
LANDED = "      __syncwarp(); // the copies of the other lanes have landed too\n"
READ = "        __syncwarp(); // every lane has read before the stage is filled again\n"
SHORTER = "    wait_for_copies<kStages>();\n"


def outcomes(folder: Path, old: str = "", new: str = "") -> tuple[int, int]:
    """Compile the program with a line of feed.cuh replaced, and run it on even and odd rows."""
    shutil.copytree(cuda_shim.CSRC, folder / "csrc")
    feed = folder / "csrc" / "cuda" / "feed.cuh"
    text = feed.read_text()
    assert not old or text.count(old) == 1
    feed.write_text(text.replace(old, new) if old else text)
    source, program = folder / "program.cpp", folder / "program"
    source.write_text(PROGRAM)
    fibres = cuda_shim.SHIM / "fibres.cpp"
    includes = [f"-I{path}" for path in (cuda_shim.SHIM, folder / "csrc")]
    cuda_shim.run(["g++", "-std=c++17", *includes, str(source), str(fibres), "-o", str(program)])
    even, odd = (
        subprocess.run([str(program), *how], capture_output=True, check=False).returncode
        for how in ([], ["odd"])
    )
    return even, odd


def test_the_ring_hands_out_every_member_of_every_tile(tmp_path):
    assert outcomes(tmp_path) == (0, 0)


@pytest.mark.slow
def test_a_missing_wait_is_found(tmp_path):
    even, odd = outcomes(tmp_path, WAIT)
    assert even != 0
    assert odd != 0


@pytest.mark.slow
def test_a_wait_for_one_stage_too_few_is_found(tmp_path):
    even, odd = outcomes(tmp_path, WAIT, SHORTER)
    assert even != 0
    assert odd != 0


@pytest.mark.slow
@pytest.mark.parametrize("barrier", [LANDED, READ], ids=["landed", "read"])
def test_a_missing_barrier_between_lanes_is_found(tmp_path, barrier):
    """Where a thread reads only what it copied itself, no barrier is needed."""
    even, odd = outcomes(tmp_path, barrier)
    assert even == 0
    assert odd != 0
