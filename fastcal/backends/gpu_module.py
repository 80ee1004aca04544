"""The passes of a compiled GPU module: addresses, a stream and a workspace handed over.

Apart from `fastcal.backends.cuda`, so that the same hand-over serves a module built to run on the
CPU, which is how the kernels are tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fastcal.backends import native
from fastcal.core.problem import Finish, Reading, StateLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = tuple[int, int, int, int]
"""Device, stream, address and size of a workspace."""


class Module(Protocol):
    """What ``csrc/python/cuda_module.cpp`` exports."""

    def ensemble_statistics(
        self,
        shape: tuple[int, ...],
        classes: int,
        view: native.View,
        addresses: Sequence[int],
        weights: Sequence[float],
        temperatures: Sequence[float],
        reading: tuple[bool, int, bool, bool],
        finish: tuple[object, ...],
        place: Place,
    ) -> None: ...
    def ensemble_accumulate(
        self,
        shape: tuple[int, ...],
        member: native.View,
        weight: float,
        temperature: float,
        reading: tuple[bool, int, bool, bool],
        layout: tuple[int, bool, bool, bool],
        state: native.View,
        place: Place,
    ) -> None: ...
    def ensemble_finalize(
        self,
        shape: tuple[int, ...],
        state: native.View,
        layout: tuple[int, bool, bool, bool],
        n_members: int,
        total_weight: float,
        reading: tuple[bool, int, bool, bool],
        finish: tuple[object, ...],
        place: Place,
    ) -> None: ...
    def workspace_bytes(
        self,
        device: int,
        classes: int,
        planes: int,
        n_members: int,
        n_cells: int,
        rows: int,
        wide: bool,
    ) -> int: ...


class Passes:
    """The three functions of a backend, on a compiled module.

    Args:
        module: What is called.
        stream: The stream to launch on, asked at every call: ``device -> (index, handle)``.
    """

    def __init__(self, module: Module, stream: Callable[[torch.device], tuple[int, int]]) -> None:
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
            native.reading_tuple(reading),
            native.finish_tuple(finish, reading, num_classes),
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
        place, _workspace = self._place(member, layout, 1, None)
        self._module.ensemble_accumulate(
            native.voxel_shape(member, reading.class_dim),
            native.class_view(member, reading.class_dim),
            weight,
            temperature,
            native.reading_tuple(reading),
            native.layout_tuple(layout),
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
        place, _workspace = self._place(state, layout, 0, finish)
        self._module.ensemble_finalize(
            native.voxel_shape(state, 0),
            native.class_view(state, 0),
            native.layout_tuple(layout),
            n_members,
            total_weight,
            native.reading_tuple(reading),
            native.finish_tuple(finish, reading, layout.num_classes),
            place,
        )

    def _place(
        self, tensor: Tensor, layout: StateLayout, n_members: int, finish: Finish | None
    ) -> tuple[Place, Tensor | None]:
        """Where to run, and the workspace, to be held until the launch.

        torch hands memory that is freed on a stream out again on that stream alone.
        """
        index, stream = self._stream(tensor.device)
        counting = None if finish is None else finish.counting
        n_cells = 0 if counting is None else counting.thresholds.numel() + 1
        rows = 0 if counting is None else counting.rows
        wide = tensor.dtype == torch.float64
        # On the chip the squares of all classes share a plane.
        planes = layout.num_classes * (1 + layout.votes) + layout.entropy + layout.square
        n_bytes = self._workspace_bytes(
            index, layout.num_classes, planes, n_members, n_cells, rows, wide
        )
        if n_bytes == 0:
            return (index, stream, 0, 0), None
        workspace = torch.empty(n_bytes, dtype=torch.uint8, device=tensor.device)
        return (index, stream, workspace.data_ptr(), n_bytes), workspace


def _alike(members: list[Tensor]) -> list[Tensor]:
    """Members of one layout: a launch describes the strides once, so others are copied."""
    strides = members[0].stride()
    if all(member.stride() == strides for member in members):
        return members
    return [member.contiguous() for member in members]
