"""Which implementation of the ops runs: chosen by device, or forced in a with-block.

Backends are modules of this package, each imported when it is first wanted. Importing this package
touches neither a driver nor a native module.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from fastcal.backends.failures import cannot_launch
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

_DEVICES = {
    "reference": ("cpu", "cuda"),
    "cpu": ("cpu",),
    "cuda": ("cuda",),
    "triton": ("cuda",),
}
"""Name of every backend to the types of device whose tensors it takes."""

_PREFERENCE = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}
"""Type of device to the backends that may serve it, best first."""


class Backend(Protocol):
    """What a backend module provides. Every function writes into tensors that it is given."""

    def ensemble_statistics(
        self,
        members: list[Tensor],
        weights: list[float],
        temperatures: list[float],
        reading: Reading,
        finish: Finish,
    ) -> None:
        """Compute maps and statistics of the members in one pass."""
        ...

    def ensemble_accumulate(
        self,
        member: Tensor,
        weight: float,
        temperature: float,
        reading: Reading,
        layout: StateLayout,
        state: Tensor,
    ) -> None:
        """Add one member to ``state``, ``[planes, *voxel shape]``."""
        ...

    def ensemble_finalize(
        self,
        state: Tensor,
        n_members: int,
        total_weight: float,
        reading: Reading,
        layout: StateLayout,
        finish: Finish,
    ) -> None:
        """Compute maps and statistics of ``state``, which stays as it is."""
        ...

    def temperature_sums(
        self,
        problem: TemperatureProblem,
        inverse_temperatures: list[float],
        per_class: bool,
        counts: Tensor,
        sums: Tensor,
    ) -> None:
        """Add a volume to ``counts`` and ``sums``; see `TemperatureLayout`."""
        ...

    def class_sums(
        self,
        logits: Tensor,
        target: Tensor,
        reading: LossReading,
        wanted: SumsWanted,
        sums: Tensor,
    ) -> None:
        """Write the sums ``[G, B, len(SUM_ROWS), C]``, float64."""
        ...

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
        ...

    def bin_gaps(
        self, logits: Tensor, target: Tensor, reading: LossReading, bins: GapBins, sums: Tensor
    ) -> None:
        """Write the sums ``[G, B, C, bins.words]``, float64."""
        ...

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
        ...

    def segment_sums(self, problem: SegmentProblem, sums: Tensor) -> None:
        """Add the sums of every batch item and class to ``sums``; see `SegmentWords`."""
        ...


class ShapesBackend(Protocol):
    """What a backend may provide besides: passes over labels of one byte, all contiguous.

    They are no ops: `fastcal.segments` does the same in PyTorch where a backend lacks them.
    """

    def interior(self, labels: Tensor, limit: int, reach: int, inside: Tensor) -> None:
        """Write whether the squared distance to the next other label is above ``limit``.

        ``labels`` and ``inside`` are ``[*S]`` of at most three axes, with steps of 1. ``reach`` is
        the largest whole distance that counts; the limit is at most 100.
        """
        ...

    def patch_maxima(
        self, values: Tensor, labels: Tensor, size: int, sums: Tensor, largest: Tensor
    ) -> None:
        """Write the largest sum over a patch around the voxels of each class, float64 ``[C]``.

        ``labels`` is ``[*S]`` as ``values`` is, or ``[C, *S]`` of 0 and 1; ``sums`` is room for
        ``[*S]``. A class without voxels gets -inf.
        """
        ...

    def component_counts(self, labels: Tensor, smallest: int, counts: Tensor) -> None:
        """Write the numbers of components of at least ``smallest`` voxels, int64 ``[C]``."""
        ...

    def member_overlaps(self, labels: list[Tensor], found: Tensor) -> None:
        """Add the voxels that each pair of members gives to each class, int64 ``[C, M, M]``."""
        ...


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """Whether a backend can run here, and if not, why."""

    name: str
    available: bool
    reason: str
    """Empty when available."""
    failed: dict[str, str] = field(default_factory=dict, repr=False)
    """Ops whose kernels this process could not compile or launch, with the reason of each."""


_forced: ContextVar[str | None] = ContextVar("fastcal_backend", default=None)
_loaded: dict[str, Backend | str] = {}
_failed: dict[tuple[str, str], str] = {}
"""Backend and op to why its kernel could not be compiled or launched."""


def _load(name: str) -> Backend | str:
    """Give the module of a backend, or the reason why there is none."""
    found = _loaded.get(name)
    if found is None:
        module = f"{__name__}.{name}"
        try:
            found = cast(Backend, importlib.import_module(module))
        except ModuleNotFoundError as error:
            missing = error.name == module
            found = "not built into this installation" if missing else str(error)
        except ImportError as error:
            found = str(error)
        _loaded[name] = found
    return found


def select(device: torch.device, *, op: str = "ensemble_statistics") -> Backend:
    """Give the backend that serves tensors on ``device``: the forced one, or the best available.

    Args:
        device: Device of the tensors.
        op: The function that is wanted. Backends without it are passed over, and so are those
            where its kernel could not be compiled or launched before.

    Raises:
        ValueError: The forced backend does not take tensors on this device or lacks the function,
            or there is no backend that does.
    """
    forced = _forced.get()
    if forced is not None and device.type not in _DEVICES[forced]:
        raise ValueError(
            f"tensors for backend {forced!r} must be on {' or '.join(_DEVICES[forced])}, "
            f"got {device.type}"
        )
    for name in (forced,) if forced is not None else _PREFERENCE.get(device.type, ()):
        found = _load(name)
        if not isinstance(found, str) and hasattr(found, op):
            if forced is None and (name, op) in _failed:
                continue
            return found
    if forced is not None:
        raise ValueError(f"backend must be one with {op}, got {forced!r}")
    raise ValueError(f"tensors must be on {' or '.join(_PREFERENCE)}, got {device.type}")


def shapes(device: torch.device) -> ShapesBackend | None:
    """Give the backend that has the functions of `ShapesBackend` for tensors on ``device``.

    Args:
        device: Device of the tensors.

    Returns:
        The forced backend or the best one, or None where that has no such functions.
    """
    found = select(device)
    return cast(ShapesBackend, found) if hasattr(found, "member_overlaps") else None


def call(op: str, device: torch.device, *arguments: Any) -> None:
    """Run an op on the backend that `select` gives.

    Where its kernel cannot be compiled or launched, a warning says so once, and this op goes to
    the next backend from then on. `status` keeps the reason. A forced backend has no next one.

    Args:
        op: Name of the function of a backend.
        device: Device of the tensors.
        *arguments: Those of the function.

    Raises:
        ValueError: See `select`.
    """
    while True:
        chosen = select(device, op=op)
        try:
            getattr(chosen, op)(*arguments)
            return
        except Exception as error:
            own = _forced.get() is None and device.type != "cpu" and cannot_launch(error)
            if not own or not _leave_to_next(chosen, op, device, error):
                raise


def _leave_to_next(chosen: Backend, op: str, device: torch.device, error: Exception) -> bool:
    """Note that a backend fails at an op, and warn. False where no further backend has it."""
    able = [name for name in _PREFERENCE[device.type] if hasattr(_load(name), op)]
    position = next(i for i, name in enumerate(able) if _loaded[name] is chosen)
    if position + 1 == len(able):
        return False
    name, following = able[position : position + 2]
    if (name, op) not in _failed:  # else another thread was faster
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__
        _failed[name, op] = reason
        warnings.warn(
            f"backend {name!r} cannot compile or launch its kernel of {op}, so that {following!r} "
            f"takes over: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )
    return True


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Force a backend for the calls of this thread inside a with-block. Blocks may be nested.

    Args:
        name: ``"reference"`` (plain PyTorch), ``"cpu"``, ``"cuda"`` or ``"triton"``.

    Raises:
        ValueError: There is no backend of that name, or it cannot run here. The message says why.

    Example:
        >>> import torch, fastcal
        >>> with fastcal.backend("reference"):
        ...     fastcal.ensemble_entropy([torch.zeros(1, 2, 1)])
        tensor([[0.6931]])
    """
    if name not in _DEVICES:
        raise ValueError(f"backend must be among {', '.join(_DEVICES)}, got {name!r}")
    found = _load(name)
    if isinstance(found, str):
        raise ValueError(f"backend must be one that can run here, got {name!r}: {found}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def status(*, gpu: bool = True) -> list[BackendStatus]:
    """List every backend with whether it can run here, and the reason where it cannot.

    Args:
        gpu: Ask the GPU driver too. False leaves out the backends that need it.

    Example:
        >>> status()[0]
        BackendStatus(name='reference', available=True, reason='')
    """
    names = [name for name, devices in _DEVICES.items() if gpu or "cpu" in devices]
    found = {name: _load(name) for name in names}
    failed = {
        name: {op: reason for (of, op), reason in _failed.items() if of == name} for name in found
    }
    return [
        BackendStatus(
            name, not isinstance(it, str), it if isinstance(it, str) else "", failed[name]
        )
        for name, it in found.items()
    ]


def preferred(device_type: str) -> str | None:
    """Give the name of the backend that serves a type of device when none is forced.

    Example:
        >>> preferred("cpu")
        'cpu'
    """
    names = _PREFERENCE.get(device_type, ())
    return next((name for name in names if not isinstance(_load(name), str)), None)
