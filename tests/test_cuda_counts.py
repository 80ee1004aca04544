"""What a warp issues in a plain pass, counted in the machine code for compute capability 9.0.

The limits are those that docs/gpu.md builds its predictions on.
"""

from __future__ import annotations

import cuda_counts
import pytest

from benchmarks import model_passes
from fastcal.core.problem import MAPS

MEMBER_SLOTS = 160
"""For one member, of 16 elements: 4 classes of 4 voxels."""
ENTROPY_SLOTS, ALL_MAPS_SLOTS = 80, 250
"""For a voxel in the second stage, with what a tile costs once."""

pytestmark = pytest.mark.skipif(
    cuda_counts.nvcc() is None or cuda_counts.tool("cuobjdump") is None,
    reason="needs nvcc, and cuobjdump from Triton",
)


def assert_wide_and_whole(counts: cuda_counts.Counts) -> None:
    """Members and maps move 16 bytes at a time, and nothing is spilled."""
    assert counts.stack == 0
    assert "LDGSTS.E.BYPASS.128" in counts.loads
    assert "LDS.128" in counts.loads
    assert not any(name.startswith("LDG.") for name in counts.loads)
    assert "STG.E.128" in counts.stores


def assert_near_the_model(counts: cuda_counts.Counts, name: str) -> None:
    """The predictions of docs/gpu.md are made of what is counted here."""
    kernel = model_passes.named(name)
    assert counts.member == pytest.approx(kernel.member_slots, rel=0.1)
    assert counts.rest == pytest.approx(kernel.voxel_slots, rel=0.15)


def test_entropy_alone_takes_few_slots(tmp_path):
    counts = cuda_counts.count(tmp_path, "float32", ("entropy",))
    assert_wide_and_whole(counts)
    assert counts.stores == {"STG.E.128"}
    assert counts.member <= MEMBER_SLOTS
    assert counts.rest <= ENTROPY_SLOTS
    assert_near_the_model(counts, "float32 entropy")


def test_all_maps_take_few_slots(tmp_path):
    counts = cuda_counts.count(tmp_path, "float32", MAPS)
    assert_wide_and_whole(counts)
    assert counts.rest <= ALL_MAPS_SLOTS
    assert_near_the_model(counts, "float32 all maps")


@pytest.mark.slow
@pytest.mark.parametrize("maps", [("entropy",), MAPS], ids=["entropy", "all"])
def test_half_precision_takes_no_more_than_single(tmp_path, maps):
    counts = cuda_counts.count(tmp_path, "bfloat16", maps)
    assert_wide_and_whole(counts)
    limit = ENTROPY_SLOTS if len(maps) == 1 else ALL_MAPS_SLOTS
    assert counts.rest <= limit
    if len(maps) == 1:
        assert counts.member <= 2 * MEMBER_SLOTS  # twice as many elements
    assert_near_the_model(counts, f"bfloat16 {'entropy' if len(maps) == 1 else 'all maps'}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_odd_rows_are_copied_sixteen_bytes_at_a_time_too(tmp_path, dtype):
    counts = cuda_counts.count(tmp_path, dtype, ("entropy",), aligned=False)
    assert counts.stack == 0
    assert any(name.startswith("LDGSTS") and ".128" in name for name in counts.loads)
    elements = 4 * cuda_counts.ELEMENTS[dtype][1]
    assert counts.member <= MEMBER_SLOTS * elements / 16 + 7 * elements
    assert_near_the_model(counts, f"{dtype} entropy, odd rows")


def test_the_policy_keeps_enough_bytes_on_their_way():
    """Registers leave room for the warps that this counts on: see test_cuda_registers.py."""
    for element_bytes in (2, 4):
        for classes in (2, 3, 4, 5, 6, 7, 8):
            flight = cuda_counts.in_flight(element_bytes, classes)
            assert flight.bytes_of_warp * 12 >= 64 << 10, (element_bytes, classes)
            assert flight.shared_of_warp * 12 <= 200 << 10, (element_bytes, classes)
