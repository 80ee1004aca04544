"""Tuning numbers of the Triton kernels, and the shape of a launch that follows from them."""

from __future__ import annotations

from functools import cache

import torch

NUM_WARPS = 4
THREADS = 32 * NUM_WARPS

LOAD_BYTES = 16
"""Widest load of a lane."""

REGISTER_CLASSES = 16
"""Up to so many classes a voxel's sums stay in registers; above, in an accumulator's state."""

REGISTER_WORDS = 128
"""Registers of a lane that may hold a member's classes and the sums over members."""

NARROW_LOAD_BYTES = 8
"""Narrowest load worth the registers it saves."""

PROGRAMS_A_PROCESSOR = 8
"""Programs of the register kernel for each multiprocessor: all of them resident at once."""

LAUNCH_MEMBERS = 64
"""Members whose pointers one launch of the register kernel takes."""

ACCUMULATE_MEMBERS = 8
"""Members of one launch that adds to a state: unrolled, their maxima and sums in registers."""

TEMPERATURE_TILE = 2048
"""Numbers ``[voxels, classes]`` that a program of the temperature pass holds at once."""

HISTOGRAM_CELLS = 8
"""Bins counted together: a tile ``[cells, voxels]`` of comparisons."""

MIN_INNER = 256
"""Voxels below which the outermost axis is not given to whole programs."""

REPLICA_WORDS = 1 << 17
MAX_REPLICAS = 64
"""Copies of the statistics that programs add to, so that few of them meet at one address."""

FOLD_WORDS = 128
"""Words of the statistics that a program of the fold adds up."""


def register_lane(itemsize: int, num_classes: int, planes: int) -> int:
    """Voxels of a lane that keeps a member's classes and all planes of sums in registers.

    0 where they do not fit.
    """
    if num_classes > REGISTER_CLASSES:
        return 0
    words = (num_classes + planes) * max(1, itemsize // 4)
    lane = LOAD_BYTES // itemsize
    while lane * words > REGISTER_WORDS:
        lane //= 2
        if lane * itemsize < NARROW_LOAD_BYTES:
            return 0
    return lane


def block_voxels(lane: int, n_inner: int) -> int:
    """Voxels of a program, fewer where there are few.

    Counting packs numbers of voxels into fields of 12 bits: at most 2048.
    """
    voxels = THREADS * lane
    while voxels > THREADS and voxels // 2 >= n_inner:
        voxels //= 2
    return voxels


@cache
def resident_programs(device: torch.device) -> int:
    """Programs that go over all blocks of a launch."""
    if device.type != "cuda":
        return 2  # the interpreter
    return PROGRAMS_A_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


def replicas(words: int) -> int:
    """Copies of ``words`` statistics words."""
    return max(1, min(MAX_REPLICAS, REPLICA_WORDS // max(words, 1)))
