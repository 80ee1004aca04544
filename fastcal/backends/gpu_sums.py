"""The passes of a compiled GPU module that give sums of doubles: losses and temperature scaling.

Like `fastcal.backends.gpu_passes`, this serves a module that was built to run on the CPU too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from fastcal.backends import native
from fastcal.backends.gpu_passes import Place
from fastcal.core.arrays import accumulation_type
from fastcal.core.bins import thresholds_on
from fastcal.core.problem import SUM_ROWS, GapBins, LossReading, SumsWanted, TemperatureProblem


class CompiledSums(Protocol):
    """What of ``csrc/python/cuda_module.cpp`` these passes call."""

    class_sums: Callable[[native.LossInput, tuple[bool, bool, bool], int, Place], None]
    class_gradient: Callable[
        [native.LossInput, tuple[bool, bool, bool], int, native.AddressView, Place], None
    ]
    bin_gaps: Callable[[native.LossInput, int, bool, int, int, Place], None]
    bin_gradient: Callable[[native.LossInput, int, bool, int, int, native.AddressView, Place], None]
    temperature_sums: Callable[
        [tuple[int, ...], tuple[object, ...], list[float], bool, int, int, Place], None
    ]
    loss_workspace_bytes: Callable[[native.LossInput, int], int]
    temperature_workspace_bytes: Callable[[int, int, bool], int]


class GpuSums:
    """The functions of a backend, on a compiled module.

    Args:
        module: The compiled module.
        stream: Gives the stream to launch on, at every call: ``device -> (index, handle)``.
    """

    def __init__(
        self, module: CompiledSums, stream: Callable[[torch.device], tuple[int, int]]
    ) -> None:
        self._module = module
        self._stream = stream

    def class_sums(
        self,
        logits: Tensor,
        target: Tensor,
        reading: LossReading,
        wanted: SumsWanted,
        sums: Tensor,
    ) -> None:
        """Write the sums of `fastcal.core.problem.SUM_ROWS`, NaN where a target is no class."""
        if target.numel() == 0:
            sums.zero_()
            return
        given = native.loss_input(logits, target, reading)
        place, _workspace = self._place(logits, given, len(SUM_ROWS) * logits.shape[2])
        self._module.class_sums(given, native.plain_wanted(wanted), sums.data_ptr(), place)

    def class_gradient(
        self,
        logits: Tensor,
        target: Tensor,
        reading: LossReading,
        wanted: SumsWanted,
        factors: Tensor,
        gradient: Tensor,
    ) -> None:
        """Write the gradient by the logits, given the derivative by each sum."""
        self._module.class_gradient(
            native.loss_input(logits, target, reading),
            native.plain_wanted(wanted),
            factors.data_ptr(),
            native.class_view(gradient, native.LOSS_CLASS_DIM),
            (*self._stream(logits.device), 0, 0),
        )

    def bin_gaps(
        self, logits: Tensor, target: Tensor, reading: LossReading, bins: GapBins, sums: Tensor
    ) -> None:
        """Write the gaps and amounts of each bin, and the voxels of each class."""
        if target.numel() == 0:
            sums.zero_()
            return
        given = native.loss_input(logits, target, reading)
        place, _workspace = self._place(logits, given, bins.words * logits.shape[2])
        edges = thresholds_on(bins.count, accumulation_type(logits.dtype), logits.device)
        self._module.bin_gaps(
            given, bins.count, bins.soft, edges.data_ptr(), sums.data_ptr(), place
        )

    def bin_gradient(
        self,
        logits: Tensor,
        target: Tensor,
        reading: LossReading,
        bins: GapBins,
        factors: Tensor,
        gradient: Tensor,
    ) -> None:
        """Write the gradient by the logits, given the derivative by each sum."""
        edges = thresholds_on(bins.count, accumulation_type(logits.dtype), logits.device)
        self._module.bin_gradient(
            native.loss_input(logits, target, reading),
            bins.count,
            bins.soft,
            edges.data_ptr(),
            factors.data_ptr(),
            native.class_view(gradient, native.LOSS_CLASS_DIM),
            (*self._stream(logits.device), 0, 0),
        )

    def temperature_sums(
        self,
        problem: TemperatureProblem,
        inverse_temperatures: list[float],
        per_class: bool,
        counts: Tensor,
        sums: Tensor,
    ) -> None:
        """Add a volume to ``counts`` and ``sums``."""
        values = problem.values
        shape = native.voxel_shape(values, 0)
        n_bytes = self._module.temperature_workspace_bytes(
            math.prod(shape), values.shape[0], per_class
        )
        place, _workspace = self._allocated(values, n_bytes)
        self._module.temperature_sums(
            shape,
            native.plain_temperature(problem),
            inverse_temperatures,
            per_class,
            counts.data_ptr(),
            sums.data_ptr(),
            place,
        )

    def _place(self, logits: Tensor, given: native.LossInput, words: int) -> tuple[Place, Tensor]:
        return self._allocated(logits, self._module.loss_workspace_bytes(given, words))

    def _allocated(self, tensor: Tensor, n_bytes: int) -> tuple[Place, Tensor]:
        """Choose where to run, and allocate the workspace, which must be held until the launch."""
        workspace = torch.empty(n_bytes, dtype=torch.uint8, device=tensor.device)
        index, stream = self._stream(tensor.device)
        return (index, stream, workspace.data_ptr(), n_bytes), workspace
