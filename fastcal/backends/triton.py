"""The Triton backend: it finds out whether it can run and makes the device current.

It is meant for NVIDIA GPUs. AMD GPUs may work, but are untested. `fastcal.backends.Backend`
documents the functions.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from fastcal.core.problem import (
    Finish,
    GapBins,
    LossReading,
    Reading,
    StateLayout,
    SumsWanted,
    TemperatureProblem,
)
from fastcal.core.segment_problem import SegmentProblem


def _require_device() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        return
    if torch.version.cuda is None and torch.version.hip is None:
        raise ImportError("this torch was built without CUDA")
    if torch.cuda.device_count() == 0:
        raise ImportError("no CUDA device was found")


_require_device()

from fastcal.triton_kernels import (  # noqa: E402
    bin_gaps as _bins,
)
from fastcal.triton_kernels import (  # noqa: E402
    class_sums as _sums,
)
from fastcal.triton_kernels import (  # noqa: E402
    ensemble_accumulate as _accumulate,
)
from fastcal.triton_kernels import (  # noqa: E402
    ensemble_finalize as _finalize,
)
from fastcal.triton_kernels import (  # noqa: E402
    ensemble_statistics as _statistics,
)
from fastcal.triton_kernels import (  # noqa: E402
    segment_sums as _segments,
)
from fastcal.triton_kernels import (  # noqa: E402
    temperature_sums as _temperature,
)


def ensemble_statistics(
    members: list[Tensor],
    weights: list[float],
    temperatures: list[float],
    reading: Reading,
    finish: Finish,
) -> None:
    """Compute maps and statistics of the members in one pass."""
    with _current(members[0]):
        _statistics.ensemble_statistics(members, weights, temperatures, reading, finish)


def ensemble_accumulate(
    member: Tensor,
    weight: float,
    temperature: float,
    reading: Reading,
    layout: StateLayout,
    state: Tensor,
) -> None:
    """Add one member to ``state``."""
    with _current(member):
        _accumulate.ensemble_accumulate([member], [weight], [temperature], reading, layout, state)


def ensemble_finalize(
    state: Tensor,
    n_members: int,
    total_weight: float,
    reading: Reading,
    layout: StateLayout,
    finish: Finish,
) -> None:
    """Compute maps and statistics of ``state``, which stays as it is."""
    with _current(state):
        _finalize.ensemble_finalize(state, n_members, total_weight, reading, layout, finish)


def temperature_sums(
    problem: TemperatureProblem,
    inverse_temperatures: list[float],
    per_class: bool,
    counts: Tensor,
    sums: Tensor,
) -> None:
    """Add a volume to ``counts`` and ``sums``."""
    with _current(problem.values):
        _temperature.temperature_sums(problem, inverse_temperatures, per_class, counts, sums)


def class_sums(
    logits: Tensor, target: Tensor, reading: LossReading, wanted: SumsWanted, sums: Tensor
) -> None:
    """Write the sums of `fastcal.core.problem.SUM_ROWS`."""
    with _current(logits):
        _sums.class_sums(logits, target, reading, wanted, sums)


def class_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    wanted: SumsWanted,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the derivative by each sum."""
    with _current(logits):
        _sums.class_gradient(logits, target, reading, wanted, factors, gradient)


def bin_gaps(
    logits: Tensor, target: Tensor, reading: LossReading, bins: GapBins, sums: Tensor
) -> None:
    """Write the gaps and amounts of each bin, and the voxels of each class."""
    with _current(logits):
        _bins.bin_gaps(logits, target, reading, bins, sums)


def bin_gradient(
    logits: Tensor,
    target: Tensor,
    reading: LossReading,
    bins: GapBins,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    """Write the gradient by the logits, given the derivative by each sum."""
    with _current(logits):
        _bins.bin_gradient(logits, target, reading, bins, factors, gradient)


def segment_sums(problem: SegmentProblem, sums: Tensor) -> None:
    """Add the sums of every batch item and class."""
    with _current(problem.mean):
        _segments.segment_sums(problem, sums)


def _current(tensor: Tensor) -> AbstractContextManager[None]:
    """Make the tensor's device current: Triton launches on it and its current stream."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
