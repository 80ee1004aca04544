"""Tuning numbers of the Triton kernels, and the shape of a launch that follows from them."""

from __future__ import annotations

from functools import cache

import torch

NUM_WARPS = 4
THREADS = 32 * NUM_WARPS

LOAD_BYTES = 16
"""Widest load of a lane."""

REGISTER_CLASSES = 16
"""The largest number of classes whose sums stay in registers. With more, they are in a state."""

REGISTER_WORDS = 128
"""Registers of a lane that may hold the classes of a member and the sums over members."""

NARROW_LOAD_BYTES = 8
"""Narrowest load worth the registers it saves."""

PROGRAMS_PER_PROCESSOR = 8
"""Programs of the register kernel per multiprocessor. All of them are resident at once."""

LAUNCH_MEMBERS = 64
"""Members whose pointers one launch of the register kernel takes."""

ACCUMULATE_MEMBERS = 8
"""Members of one launch that adds to a state. Their loop is unrolled, with sums in registers."""

TEMPERATURE_TILE = 2048
"""Numbers ``[voxels, classes]`` that a program of the temperature pass holds at once."""

SEGMENT_BLOCK = 512
"""Voxels of float32 that a program of the pass over segments reads at once."""

HISTOGRAM_CELLS = 8
"""Bins that are counted together, as a tile ``[cells, voxels]`` of comparisons."""

MIN_INNER = 256
"""With fewer voxels per item than this, the outermost axis is not dealt to whole programs."""

REPLICA_WORDS = 1 << 17
MAX_REPLICAS = 64
"""Most copies of the statistics. Programs add to different copies, so few meet at an address."""

FOLD_WORDS = 128
"""Words of the statistics that a program of the fold adds up."""


def register_lane(itemsize: int, num_classes: int, planes: int) -> int:
    """Choose the voxels of a lane that keeps a member's classes and all sums in registers.

    The result is 0 where they do not fit.
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
    """Choose the voxels of a program, fewer where the volume is small.

    Counting packs numbers of voxels into fields of 12 bits, so there are at most 2048.
    """
    voxels = THREADS * lane
    while voxels > THREADS and voxels // 2 >= n_inner:
        voxels //= 2
    return voxels


@cache
def resident_programs(device: torch.device) -> int:
    """Choose the number of programs that go over all blocks of a launch."""
    if device.type != "cuda":
        return 2  # the interpreter
    return PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


def replicas(words: int) -> int:
    """Choose the number of copies of ``words`` words of statistics."""
    return max(1, min(MAX_REPLICAS, REPLICA_WORDS // max(words, 1)))
