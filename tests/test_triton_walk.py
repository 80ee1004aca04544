"""How the Triton launchers lay out their work: voxel axes, blocks, copies of the statistics."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastcal.triton_kernels import policy
from fastcal.triton_kernels.walk import class_view, plan_walk, voxel_view

SHAPE = (2, 30, 40, 50)


def member(*, channels_last: bool = False) -> torch.Tensor:
    batch, *spatial = SHAPE
    if channels_last:
        return torch.zeros(batch, *spatial, 3).movedim(-1, 1)
    return torch.zeros(batch, 3, *spatial)


def test_contiguous_voxels_are_one_axis_within_a_batch_item():
    walk, (view, label) = plan_walk(
        SHAPE, [class_view(member(), 1), voxel_view(torch.zeros(SHAPE))], pinned=False
    )
    assert (walk.n_outer, walk.extents) == (2, (60000,))
    assert (view.class_stride, view.strides) == (60000, (180000, 1))
    assert label.strides == (60000, 1)


def test_channels_last_voxels_are_one_axis_altogether():
    walk, (view,) = plan_walk(SHAPE, [class_view(member(channels_last=True), 1)], pinned=False)
    assert (walk.n_outer, walk.extents, view.strides) == (1, (120000,), (0, 3))


def test_a_row_of_statistics_keeps_programs_within_a_batch_item():
    walk, _ = plan_walk(SHAPE, [class_view(member(channels_last=True), 1)], pinned=True)
    assert (walk.n_outer, walk.extents) == (2, (60000,))


def test_a_cropped_view_keeps_its_axes():
    cropped = torch.zeros(2, 3, 32, 42, 52)[:, :, 1:31, 1:41, 1:51]
    walk, (view,) = plan_walk(SHAPE, [class_view(cropped, 1)], pinned=False)
    assert (walk.n_outer, walk.extents) == (2, (30, 40, 50))
    assert view.strides == (cropped.stride(0), 42 * 52, 52, 1)


def test_a_transposed_view_is_walked_as_it_lies_in_memory():
    transposed = member().transpose(2, 4)
    shape = (2, 50, 40, 30)
    walk, (view,) = plan_walk(shape, [class_view(transposed, 1)], pinned=False)
    assert (walk.extents, view.strides) == ((60000,), (180000, 1))


def test_a_single_voxel_has_axes_too():
    walk, (view, absent) = plan_walk((1, 1), [voxel_view(torch.zeros(1, 1)), None], pinned=False)
    assert (walk.n_outer, walk.n_inner, len(view.strides)) == (1, 1, 2)
    assert absent is None


@pytest.mark.parametrize(
    ("itemsize", "n_classes", "planes", "lane"),
    [(4, 4, 4, 4), (2, 4, 4, 8), (2, 14, 14, 4), (4, 14, 14, 4), (8, 4, 4, 2), (4, 17, 17, 0)],
)
def test_lanes_take_sixteen_bytes_where_registers_allow(itemsize, n_classes, planes, lane):
    assert policy.register_lane(itemsize, n_classes, planes) == lane


def test_counts_of_a_block_fit_their_fields():
    widest = policy.block_voxels(policy.LOAD_BYTES // 2, 2**40)
    assert widest < 2**12


def test_copies_of_the_statistics_stay_small():
    assert policy.replicas(100) == policy.MAX_REPLICAS
    assert policy.replicas(10**9) == 1
