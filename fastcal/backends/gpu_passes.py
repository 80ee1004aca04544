"""The passes of a compiled GPU module: addresses, a stream and a workspace are handed over.

This file is apart from `fastcal.backends.cuda` because the same hand-over serves a module that was
built to run on the CPU. This is how the kernels are tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from fastcal.backends import native
from fastcal.core.problem import Finish, Reading, StateLayout
from fastcal.core.segment_problem import SegmentProblem

Place = tuple[int, int, int, int]
"""Device index, stream, and address and size of a workspace."""


class CompiledModule(Protocol):
    """What ``csrc/python/cuda_module.cpp`` exports."""

    ensemble_statistics: Callable[..., None]
    """Voxel shape, classes, `native.AddressView` of the first member, addresses of all members,
    weights, temperatures, `native.PlainReading`, `native.plain_finish`, `Place`."""

    def ensemble_accumulate(
        self,
        shape: tuple[int, ...],
        member: native.AddressView,
        weight: float,
        temperature: float,
        reading: native.PlainReading,
        layout: native.PlainLayout,
        state: native.AddressView,
        place: Place,
    ) -> None:
        """Add a member to a state."""
        ...

    def ensemble_finalize(
        self,
        shape: tuple[int, ...],
        state: native.AddressView,
        layout: native.PlainLayout,
        n_members: int,
        total_weight: float,
        reading: native.PlainReading,
        finish: tuple[object, ...],
        place: Place,
    ) -> None:
        """Write maps and statistics of a state."""
        ...

    def segment_sums(
        self, shape: tuple[int, ...], problem: tuple[object, ...], sums: int, place: Place
    ) -> None:
        """Add the sums of `native.plain_segments`."""
        ...

    def workspace_bytes(
        self,
        device: int,
        classes: int,
        planes: int,
        n_members: int,
        n_cells: int,
        rows: int,
        wide: bool,
    ) -> int:
        """Size of the workspace that a pass needs, 0 for none."""
        ...


class GpuPasses:
    """The functions of a backend, on a compiled module.

    Args:
        module: The compiled module.
        stream: Gives the stream to launch on, at every call: ``device -> (index, handle)``.
    """

    def __init__(
        self, module: CompiledModule, stream: Callable[[torch.device], tuple[int, int]]
    ) -> None:
        self._module = module
        self._stream = stream
        self._workspace_bytes = lru_cache(maxsize=256)(module.workspace_bytes)

    def ensemble_statistics(
        self,
        members: list[Tensor],
        weights: list[float],
        temperatures: list[float],
        reading: Reading,
        finish: Finish,
    ) -> None:
        """Compute maps and statistics of the members in one launch."""
        members = _alike(members)
        first, class_dim = members[0], reading.class_dim
        num_classes = first.shape[class_dim]
        layout = StateLayout.for_maps(num_classes, tuple(finish.maps))
        place, _workspace = self._place(first, layout, len(members), finish)
        self._module.ensemble_statistics(
            native.voxel_shape(first, class_dim),
            num_classes,
            native.class_view(first, class_dim),
            [member.data_ptr() for member in members],
            weights,
            temperatures,
            native.plain_reading(reading),
            native.plain_finish(finish, reading, num_classes),
            place,
        )

    def ensemble_accumulate(
        self,
        member: Tensor,
        weight: float,
        temperature: float,
        reading: Reading,
        layout: StateLayout,
        state: Tensor,
    ) -> None:
        """Add one member to ``state``."""
        place, _workspace = self._place(member, layout, 1, None)
        self._module.ensemble_accumulate(
            native.voxel_shape(member, reading.class_dim),
            native.class_view(member, reading.class_dim),
            weight,
            temperature,
            native.plain_reading(reading),
            native.plain_layout(layout),
            native.class_view(state, 0),
            place,
        )

    def ensemble_finalize(
        self,
        state: Tensor,
        n_members: int,
        total_weight: float,
        reading: Reading,
        layout: StateLayout,
        finish: Finish,
    ) -> None:
        """Compute maps and statistics of ``state``."""
        place, _workspace = self._place(state, layout, 0, finish)
        self._module.ensemble_finalize(
            native.voxel_shape(state, 0),
            native.class_view(state, 0),
            native.plain_layout(layout),
            n_members,
            total_weight,
            native.plain_reading(reading),
            native.plain_finish(finish, reading, layout.num_classes),
            place,
        )

    def segment_sums(self, problem: SegmentProblem, sums: Tensor) -> None:
        """Add the sums of every batch item and class."""
        index, stream = self._stream(problem.mean.device)
        self._module.segment_sums(
            native.voxel_shape(problem.mean, native.SEGMENT_CLASS_DIM),
            native.plain_segments(problem),
            sums.data_ptr(),
            (index, stream, 0, 0),
        )

    def _place(
        self, tensor: Tensor, layout: StateLayout, n_members: int, finish: Finish | None
    ) -> tuple[Place, Tensor | None]:
        """Choose where to run, and allocate the workspace, which must be held until the launch.

        It may be freed right after the launch: torch gives memory that was freed on a stream only
        to later work on the same stream.
        """
        index, stream = self._stream(tensor.device)
        counting = None if finish is None else finish.counting
        n_cells = 0 if counting is None else counting.thresholds.numel() + 1
        rows = 0 if counting is None else counting.rows
        wide = tensor.dtype == torch.float64
        # On the chip the squares of all classes share one plane.
        planes = layout.num_classes * (1 + layout.votes) + layout.entropy + layout.square
        n_bytes = self._workspace_bytes(
            index, layout.num_classes, planes, n_members, n_cells, rows, wide
        )
        if n_bytes == 0:
            return (index, stream, 0, 0), None
        workspace = torch.empty(n_bytes, dtype=torch.uint8, device=tensor.device)
        return (index, stream, workspace.data_ptr(), n_bytes), workspace


def _alike(members: list[Tensor]) -> list[Tensor]:
    """Give members of one layout. A launch describes the strides once, so others are copied."""
    strides = members[0].stride()
    if all(member.stride() == strides for member in members):
        return members
    return [member.contiguous() for member in members]
