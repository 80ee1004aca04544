"""What fastcal is compared with: each peer is one row of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fastcal import backends
from fastcal.bench import plain
from fastcal.bench.device import Device
from fastcal.bench.points import OUTPUTS, Point
from fastcal.bench.reference import map_error
from fastcal.bench.timing import Candidate
from fastcal.bench.variants import variant
from fastcal.bench.workload import Workload, forced, ours, score_error

_PLAIN_TOLERANCE = 1e-4
"""Tolerance of the scores that the plain pipeline sums in float32."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A calibration error that a library computed, beside the float64 sum over the same mean.

    Libraries that count in float32 are off on large volumes. They are timed nevertheless.
    """

    name: str
    theirs: float
    exact: float

    @property
    def relative(self) -> float:
        """The relative error of the library."""
        return abs(self.theirs - self.exact) / max(self.exact, 1e-12)


@dataclass(frozen=True, slots=True)
class Peer:
    """A library, or another way to write the same computation."""

    what: str
    outputs: tuple[str, ...]
    packages: tuple[str, ...] = ()
    everywhere: bool = True
    """Measured at every point. Otherwise only at the base point, unless it is wanted by name."""


PEERS = {
    "eager": Peer("PyTorch, members streamed", ("entropy", "six-maps", "all-maps")),
    "compile": Peer(
        "torch.compile of the same", ("entropy", "six-maps", "all-maps"), everywhere=False
    ),
    "monai": Peer(
        "MeanEnsemble, then the entropy, or MONAI's classwise ECE alone",
        ("entropy", "calibration"),
        ("monai",),
    ),
    "torchmetrics": Peer(
        "mean, then torchmetrics' top-label ECE alone", ("calibration",), ("torchmetrics",)
    ),
    "exacta": Peer("mean, then exacta's two diagrams", ("calibration",), ("exacta",)),
    "plain": Peer(
        "PyTorch, then torchmetrics and MONAI",
        ("six-maps+calibration",),
        ("torchmetrics", "monai"),
    ),
    "triton": Peer("fastcal's Triton backend", tuple(OUTPUTS)),
}

VARIANTS = {
    "cuda-loads": Peer("CUDA kernels that load straight to registers", tuple(OUTPUTS)),
    "cuda-ring": Peer("CUDA kernels that copy members ahead", tuple(OUTPUTS)),
    "cuda-persistent": Peer("CUDA kernels that copy members and tiles ahead", tuple(OUTPUTS)),
}
"""Competing designs of fastcal's own kernels (docs/gpu.md), measured only on request."""

KNOWN = PEERS | VARIANTS


def unavailable(name: str, device: Device) -> str | None:
    """Say why a peer or a variant cannot run here; None where it can."""
    missing = [package for package in KNOWN[name].packages if find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if name in VARIANTS:
        if device.torch.type != "cuda":
            return "needs a GPU"
        return None if serving(device) == "cuda" else "fastcal does not run on its CUDA kernels"
    if name == "triton":
        if device.torch.type != "cuda":
            return "needs a GPU"
        (status,) = (s for s in backends.status() if s.name == "triton")
        if not status.available:
            return status.reason
        if serving(device) == "triton":
            return "is what fastcal itself runs on here"
    return None


def serving(device: Device) -> str:
    """Name the backend that fastcal runs on."""
    module: Any = backends.select(device.torch)
    return str(module.__name__).rpartition(".")[2]


def spare_bytes(name: str, point: Point) -> int:
    """Estimate the memory that a peer takes beside the workload."""
    floats = 4 * point.classes * point.n_voxels
    stacked = 2 * point.members * floats if name == "monai" else 0
    return stacked + (12 * floats if "calibration" in point.outputs else 2 * floats)


def candidate(name: str, volume: Workload, outputs: str, deviations: list[Deviation]) -> Candidate:
    """Make the call of a peer on a workload.

    Args:
        name: Name in `KNOWN`.
        volume: What the peer reads.
        outputs: Name of outputs that the peer has.
        deviations: Collects the calibration errors that the peer finds when it is judged.
    """
    if name == "triton":
        return forced(ours(volume, outputs), "triton")
    if name in VARIANTS:
        return variant(ours(volume, outputs), name)
    run = _CALLS[name, outputs](volume)

    def error(result: object) -> float:
        if outputs == "six-maps+calibration":
            maps, scores = _pair(result)
            want = volume.scores(maps["mean"])
            deviations.append(Deviation("torchmetrics top-label", scores.ece.item(), want.ece))
            classwise = float(scores.classwise_ece.mean()), float(want.classwise_ece.mean())
            deviations.append(Deviation("monai classwise", *classwise))
            return max(map_error(maps, volume.want), score_error(scores, want))
        if outputs == "calibration":
            mean, values = _pair(result)
            scores = volume.scores(mean)
            exact = {"top-label": scores.ece, "classwise": float(scores.classwise_ece.mean())}
            for kind, value in values.items():
                deviations.append(Deviation(f"{name} {kind}", value, exact[kind]))
            return map_error({"mean": mean}, volume.want)
        if isinstance(result, Tensor):
            return map_error({"entropy": result}, volume.want)
        return map_error(volume.given(outputs) if result is None else _maps(result), volume.want)

    tolerance = _PLAIN_TOLERANCE if name == "plain" else max(volume.tolerance, 2e-6)
    return Candidate(name, run, error, tolerance, volume.wipe)


def _pair(result: object) -> tuple[Any, Any]:
    assert isinstance(result, tuple)
    first, second = result
    return first, second


def _maps(result: object) -> dict[str, Tensor]:
    assert isinstance(result, dict)
    return result


Call = Callable[[], object]


def _compiled(function: Callable[[Sequence[Tensor]], object]) -> Callable[[Workload], Call]:
    def make(volume: Workload) -> Call:
        torch._dynamo.reset()  # otherwise the ninth shape falls back to eager silently
        compiled = torch.compile(function)
        return lambda: compiled(volume.members())

    return make


def _of(function: Callable[[list[Tensor]], object]) -> Callable[[Workload], Call]:
    return lambda volume: lambda: function(volume.members())


def _six_in_place(volume: Workload) -> Call:
    out = volume.given("six-maps")
    return lambda: plain.six_maps_into(volume.members(), out)


def _mean_ensemble(members: list[Tensor]) -> Tensor:
    from monai.transforms.post.array import MeanEnsemble

    probabilities = [torch.softmax(member.float(), dim=1) for member in members]
    return torch.as_tensor(MeanEnsemble()(probabilities)).as_subclass(Tensor)


def _monai_calibration(volume: Workload) -> Call:
    def run() -> object:
        mean = _mean_ensemble(volume.members())
        one_hot = plain.one_hot_like(mean, volume.target)
        values = plain.monai_classwise_ece(mean, one_hot)
        return mean, {"classwise": values.mean().item()}

    return run


def _torchmetrics_calibration(volume: Workload) -> Call:
    def run() -> object:
        mean = plain.mean_probabilities(volume.members())
        return mean, {"top-label": plain.torchmetrics_ece(mean, volume.target).item()}

    return run


def _exacta_calibration(volume: Workload) -> Call:
    from exacta.functional import reliability_diagram

    def run() -> object:
        mean = plain.mean_probabilities(volume.members())
        top = reliability_diagram(mean, volume.target, bins=plain.N_BINS)
        each = reliability_diagram(mean, volume.target, bins=plain.N_BINS, mode="classwise")
        return mean, {"top-label": top.ece.item(), "classwise": each.ece.mean().item()}

    return run


_CALLS: dict[tuple[str, str], Callable[[Workload], Call]] = {
    ("eager", "entropy"): _of(plain.ensemble_entropy),
    ("eager", "six-maps"): _six_in_place,
    ("eager", "all-maps"): _of(plain.all_maps),
    ("compile", "entropy"): _compiled(plain.ensemble_entropy),
    ("compile", "six-maps"): _compiled(plain.six_maps),
    ("compile", "all-maps"): _compiled(plain.all_maps),
    ("monai", "entropy"): _of(lambda members: plain.entropy_of(_mean_ensemble(members))),
    ("monai", "calibration"): _monai_calibration,
    ("torchmetrics", "calibration"): _torchmetrics_calibration,
    ("exacta", "calibration"): _exacta_calibration,
    ("plain", "six-maps+calibration"): lambda volume: (
        lambda: plain.pipeline(volume.members(), volume.target)
    ),
}
