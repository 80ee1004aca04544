"""Calibration of given probabilities against torchmetrics, exacta and MONAI.

    python -m benchmarks.bench_calibration --quick
    python -m benchmarks.bench_calibration --threads 2

Each call makes a metric, counts one volume and reads the calibration error. The results of fastcal
(to 1e-12) and of exacta are compared with float64 before they are timed. torchmetrics and MONAI
count in float32 and are not refused for it, but the notes say how far they are off. The one-hot
target of MONAI is made before the timing.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.harness import Candidate, Row
from fastcal import CalibrationStatistics
from fastcal.bench import plain
from fastcal.bench.device import Device, open_device
from fastcal.bench.points import read_volume
from fastcal.bench.reference import Scores64, scores_64
from fastcal.bench.volumes import make_case
from fastcal.calibration import CalibrationKind

EXACT = 1e-12
IN_DOUBLE = 1e-6
"""Tolerance of exacta, which sums in float64 but finds its bins by a rule of its own."""


@dataclass(frozen=True)
class Settings:
    """One run."""

    classes: int = 4
    shape: tuple[int, int, int] = (200, 200, 225)
    threads: int | None = None
    rounds: int = 11
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class Deviation:
    """A calibration error that a library computed, and the exact one."""

    name: str
    theirs: float
    exact: float

    def __str__(self) -> str:
        off = abs(self.theirs - self.exact) / self.exact
        return f"{self.name}: {self.theirs:.6f}, in float64 {self.exact:.6f} (off by {off:.1%})"


class ProbabilityVolume:
    """Probabilities, target and one-hot target of a volume, and its exact scores."""

    def __init__(self, settings: Settings, background: float, device: Device) -> None:
        case = make_case(
            1,
            settings.classes,
            settings.shape,
            background=background,
            seed=settings.seed,
            device=device.torch,
        )
        self.probs = case.members[0].softmax(1)
        self.target = case.target
        self.one_hot = plain.one_hot_like(self.probs, self.target)
        self.want: Scores64 = scores_64(self.probs, self.target, plain.N_BINS)
        self.deviations: list[Deviation] = []

    def ours(self, calibration: CalibrationKind) -> Candidate:
        def run() -> CalibrationStatistics:
            statistics = CalibrationStatistics(
                self.probs.shape[1], plain.N_BINS, calibration=calibration
            )
            statistics.update(self.probs, self.target)
            statistics.ece() if calibration == "top-label" else statistics.classwise_ece()
            return statistics

        def error(result: object) -> float:
            assert isinstance(result, CalibrationStatistics)
            off = [abs(result.ece() - self.want.ece)]
            if calibration == "both":
                off += abs(result.classwise_ece() - self.want.classwise_ece).tolist()
            return max(off)

        return Candidate("fastcal", run, error, EXACT)

    def torchmetrics(self) -> Candidate:
        return self.loose(
            "torchmetrics", lambda: plain.torchmetrics_ece(self.probs, self.target).item()
        )

    def monai(self) -> Candidate:
        def run() -> float:
            return plain.monai_classwise_ece(self.probs, self.one_hot).mean().item()

        return self.loose("monai", run, classwise=True)

    def loose(self, name: str, run: Callable[[], float], classwise: bool = False) -> Candidate:
        """A candidate whose deviation is noted, however large."""
        exact = float(self.want.classwise_ece.mean()) if classwise else self.want.ece

        def error(result: object) -> float:
            assert isinstance(result, float)
            self.deviations.append(Deviation(name, result, exact))
            return abs(result - exact)

        return Candidate(name, run, error, tolerance=1.0)

    def exacta(self) -> Candidate:
        from exacta.functional import expected_calibration_error

        def run() -> Tensor:
            return torch.as_tensor(
                expected_calibration_error(self.probs, self.target, bins=plain.N_BINS)
            )

        def error(result: object) -> float:
            assert isinstance(result, Tensor)
            return abs(result.item() - self.want.ece)

        return Candidate("exacta", run, error, IN_DOUBLE)


def run(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and notes of a setting."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = open_device(settings.device)
    rows: list[Row] = []
    notes: list[str] = []
    for background in (0.95, 0.0):
        volume = ProbabilityVolume(settings, background, device)
        name = f"{background:.0%} background" if background else "diffuse"
        top = [volume.torchmetrics()] if _there("torchmetrics", notes) else []
        top += [volume.exacta()] if _there("exacta", notes) else []
        rows.append(_row(f"top-label, {name}", volume, "top-label", top, settings, device))
        each = [volume.monai()] if _there("monai", notes) else []
        rows.append(_row(f"top-label + classwise, {name}", volume, "both", each, settings, device))
        notes += [f"{name}, {deviation}" for deviation in volume.deviations]
    notes += state_sizes(settings.classes)
    notes.append("monai: classwise alone, its one-hot target made before")
    return rows, notes


def _there(package: str, notes: list[str]) -> bool:
    if find_spec(package) is not None:
        return True
    line = f"{package} is not installed"
    if line not in notes:
        notes.append(line)
    return False


def _row(
    workload: str,
    volume: ProbabilityVolume,
    calibration: CalibrationKind,
    others: Sequence[Candidate],
    settings: Settings,
    device: Device,
) -> Row:
    cpu = device.torch.type == "cpu"
    readers = harness.readers([volume.probs, volume.target]) if cpu else []
    timings = harness.measure(
        [volume.ours(calibration), *others, *readers], rounds=settings.rounds, clock=device.seconds
    )
    read = harness.floor(timings) if readers else None
    return Row(workload, timings["fastcal"], read, {o.name: timings[o.name] for o in others})


def state_sizes(n_classes: int, n_volumes: int = 50) -> list[str]:
    """Measure the pickled state after one and after many volumes, which must be the same."""
    case = make_case(1, n_classes, (16, 16, 16), background=0.5)
    probs = case.members[0].softmax(1)

    def sizes(metric: object) -> tuple[int, int]:
        found = []
        for n in (1, n_volumes - 1):
            for _ in range(n):
                metric.update(probs, case.target)  # type: ignore[attr-defined]
            found.append(len(pickle.dumps(metric)))
        return found[0], found[1]

    one, many = sizes(CalibrationStatistics(n_classes))
    # An integer of pickle grows by a byte where a count passes 2^31, not with each volume.
    if not many <= one + 64:
        raise harness.WrongResult(f"state grew from {one} to {many} bytes")
    lines = [f"state of fastcal: {one} bytes after one volume, {many} after {n_volumes}"]
    if find_spec("torchmetrics") is not None:
        from torchmetrics.classification import MulticlassCalibrationError

        one, many = sizes(MulticlassCalibrationError(n_classes, n_bins=plain.N_BINS))
        lines.append(f"state of torchmetrics: {one} bytes after one, {many} after {n_volumes}")
    return lines


def parse(arguments: Sequence[str] | None) -> tuple[Settings, Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--classes", type=int, default=default.classes)
    parser.add_argument("--shape", type=read_volume, default=default.shape, help="200x200x225")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--quick", action="store_true", help="small volume, three rounds")
    parser.add_argument("-o", "--out", type=Path, help="folder; benchmarks/results without --quick")
    given = parser.parse_args(arguments)
    settings = Settings(
        classes=given.classes,
        shape=given.shape,
        threads=given.threads,
        rounds=given.rounds,
        device=given.device,
    )
    if given.quick:
        settings = replace(settings, shape=(64, 64, 64), rounds=3)
    return settings, given.out or (None if given.quick else harness.RESULTS)


def main(arguments: Sequence[str] | None = None) -> None:
    settings, folder = parse(arguments)
    try:
        rows, notes = run(settings)
    except ValueError as error:
        sys.exit(f"bench_calibration: {error}")
    shape = " x ".join(map(str, settings.shape))
    title = f"Calibration of probabilities: C = {settings.classes}, {shape}, {settings.device}"
    harness.show(title, rows, notes)
    if folder is not None:
        gpu = settings.device != "cpu"
        path = harness.write(
            "calibration", title, asdict(settings), rows, notes, folder=folder, gpu=gpu
        )
        print(f"written: {path} and .md")


if __name__ == "__main__":
    main()
