"""Kernels of more than 8 classes, counted in the machine code of the built module (sm_90)."""

from __future__ import annotations

import importlib.util

import cuda_counts
import pytest

from benchmarks import model_passes

ELEMENTS = {"float32": "f", "bfloat16": "13__nv_bfloat16"}
# Classes of a thread, its voxels, and whether lanes share a voxel: kernels of 14 and 104 classes.
FEW, MANY = (16, 2, 0), (52, 1, 1)


def loops(dtype: str, kernel: tuple[int, int, int]) -> list[dict[int, int]]:
    """See `cuda_counts.member_loops`."""
    module = importlib.util.find_spec("fastcal._cuda")
    if module is None or module.origin is None or cuda_counts.tool("cuobjdump") is None:
        pytest.skip("needs the CUDA module, and cuobjdump from Triton")
    tier, voxels, split = kernel
    template = f"I{ELEMENTS[dtype]}Li{tier}ELi{voxels}ELb{split}EE"
    name = f"_ZN7fastcal4cuda13ensemble_pass{template}EvNS0_13PassArgumentsE"
    code = cuda_counts.disassembled(module.origin, name)
    found = [it for it in cuda_counts.member_loops(code, tier) if it]
    if not found:
        pytest.skip("this module was built without sm_90: make build ARCHITECTURES=90")
    return found


def slots(loop: dict[int, int], loads: int) -> int:
    """Of the way that reads every class, and the member's entry in a table at most."""
    return min(slots for passed, slots in loop.items() if loads <= passed <= loads + 2)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_an_address_and_a_class_take_few_slots(dtype: str) -> None:
    """The entropy alone: maximum, difference, scale, exponential, sum, weighted sum, load."""
    (loop,) = loops(dtype, MANY)
    found = slots(loop, 52)
    assert found <= 13 * 52
    model = model_passes.named(f"{dtype} entropy, 104 classes")
    assert found == pytest.approx(model.member_slots, rel=0.1)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_odd_rows_keep_as_many_bytes_on_their_way_as_even_ones(dtype: str) -> None:
    """A load for each voxel and class before the first is used, where they are no neighbours."""
    by_loads = sorted(loops(dtype, FEW), key=max)
    assert len(by_loads) == 2
    even, odd = (slots(loop, n) for loop, n in zip(by_loads, (16, 32), strict=True))
    assert even <= 11 * 32
    assert odd <= 13 * 32
    model = model_passes.named(f"{dtype} entropy, 14 classes")
    assert even == pytest.approx(model.member_slots, rel=0.1)
