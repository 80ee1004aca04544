"""Addresses of the Triton kernels; run by `test_triton_interpreter`, not collected by itself."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from fastcal.triton_kernels.walk import PointerView, block_lanes, class_pointers, voxel_offsets


@triton.jit
def offsets_kernel(out, base, strides, extents, n_inner, i_block, WIDE: tl.constexpr):
    lanes = block_lanes(i_block, extents, n_inner, WIDE, 8)
    offsets = voxel_offsets(lanes, strides)
    tl.store(out + tl.arange(0, 8), offsets + base, mask=lanes.m_voxels)


@pytest.mark.parametrize(
    ("strides", "extents", "i_block", "wide"),
    [
        ((0, 2**33), (1000,), 5, False),
        ((2**40, 2**20, 1), (3000, 2**20), 2**20, False),
        ((2**45, 2**32, 3, 2), (2**10, 7, 5), 17, False),
        ((2**50, 1), (2**33,), 2**29 + 2**28, True),
    ],
    ids=str,
)
def test_offsets_beyond_two_to_the_31_are_right(strides, extents, i_block, wide):
    n_inner = 1
    for extent in extents:
        n_inner *= extent
    out = torch.full((8,), -1, dtype=torch.int64)
    offsets_kernel[(1,)](out, 0, strides, extents, n_inner, i_block, WIDE=wide)
    blocks = -(-n_inner // 8)
    outer, first = i_block // blocks, i_block % blocks * 8
    for lane in range(min(8, n_inner - first)):
        voxel, wanted = first + lane, outer * strides[0]
        for extent, stride in zip(reversed(extents), reversed(strides[1:]), strict=True):
            wanted += voxel % extent * stride
            voxel //= extent
        assert out[lane] == wanted


@triton.jit
def class_offset_kernel(out, view, k):
    offset = class_pointers(view, tl.zeros([1], tl.int64), k).to(tl.int64)
    tl.store(out + tl.arange(0, 1), offset - view.pointer.to(tl.int64))


def test_class_strides_are_widened_before_they_are_multiplied():
    out = torch.zeros(1, dtype=torch.int64)
    view = PointerView(torch.zeros(1), 2**30 + 1, (0, 1))
    class_offset_kernel[(1,)](out, view, 999)
    assert out.item() == 4 * 999 * (2**30 + 1)
