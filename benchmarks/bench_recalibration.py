"""Temperature fits that stream volumes from files, compared with merely reading the same files.

    python -m benchmarks.bench_recalibration --quick
    python -m benchmarks.bench_recalibration --threads 2

Volumes lie in ``.npy`` files that were just written, so that the cache is warm. The rows are: one
pass over all files, compared with only reading their bytes; the whole fit, with the number of its
passes; and a pass over one volume in memory, of float32 logits, float16 logits and probabilities.
Then fastcal, netcal, torch-uncertainty and fiducio fit one volume in memory, each in a process of
its own that reports its peak memory beyond the volume. A temperature is checked before its time is
shown: the float64 gradients 1e-4 below and above it must have opposite signs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastcal
from benchmarks import harness
from benchmarks.harness import Candidate, Row, Timing
from benchmarks.memory import status_bytes
from fastcal.bench.points import read_volume
from fastcal.bench.volumes import make_case
from fastcal.recalibrate import TemperatureScaling
from fastcal.recalibrate.stream import Stream
from fastcal.recalibrate.temperature_pass import temperature_pass
from fastcal.recalibrate.volumes import PredictionReading

OVERCONFIDENT = 1.7
TOLERANCE = 1e-4
"""Relative error of a temperature that is allowed."""
PEERS = ("fastcal", "fiducio", "netcal", "torch-uncertainty")
CALIBRATED = 1e-2
"""Relative error that is allowed to the optimiser of another library; it is noted."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run."""

    volumes: int = 20
    classes: int = 4
    shape: tuple[int, int, int] = (200, 200, 225)
    peer_shape: tuple[int, int, int] = (200, 200, 225)
    threads: int | None = None
    rounds: int = 5
    patience: int = 900
    """Seconds that each library may take."""
    folder: Path | None = None


def logits_of(classes: int, shape: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Make logits ``[1, C, *S]`` that are too large by `OVERCONFIDENT`, and a uint8 target."""
    case = make_case(1, classes, shape, background=0.95, seed=seed)
    return case.members[0].mul_(OVERCONFIDENT), case.target.to(torch.uint8)


class Files:
    """Pairs ``(logits, target)`` in ``.npy`` files, which are mapped anew in every pass."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.paths = []
        for seed in range(settings.volumes):
            pair = (folder / f"logits{seed}.npy", folder / f"target{seed}.npy")
            for path, values in zip(
                pair, logits_of(settings.classes, settings.shape, seed), strict=True
            ):
                np.save(path, values.numpy())
            self.paths.append(pair)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for logits, target in self.paths:
            yield np.load(logits, mmap_mode="r"), np.load(target, mmap_mode="r")

    def read(self) -> int:
        """Read every byte by vector loads."""
        from fastcal import _cpu

        threads = torch.get_num_threads()
        return sum(
            _cpu.read_bytes(array.ctypes.data, array.nbytes, threads)
            for pair in self
            for array in pair
        )


def one_pass(volumes: Any, reading: PredictionReading, b: float) -> float:
    """Compute the gradient over all volumes at an inverse temperature."""
    stream = Stream(volumes, reading, 1, None, "raise")
    return sum(float(temperature_pass(volume, b).gradient) for volume in stream)


def off(temperature: float, volumes: Any, reading: PredictionReading) -> float:
    """Return 0 if the minimum lies within `TOLERANCE` of a temperature, by float64 torch."""
    b = 1 / temperature
    with fastcal.backend("reference"):
        below = one_pass(volumes, reading, b * (1 - TOLERANCE))
        above = one_pass(volumes, reading, b * (1 + TOLERANCE))
    return 0.0 if below < 0 < above else float("inf")


def pass_row(
    name: str, volumes: Any, reading: PredictionReading, read: Callable[[], Any], rounds: int
) -> Row:
    with fastcal.backend("reference"):
        exact = one_pass(volumes, reading, 0.7)

    def error(found: object) -> float:
        assert isinstance(found, float)
        return abs(found - exact) / abs(exact)

    timings = harness.measure(
        [
            Candidate("fastcal", partial(one_pass, volumes, reading, 0.7), error, 1e-5),
            Candidate("read: vector loads", read),
        ],
        rounds=rounds,
    )
    return Row(name, timings["fastcal"], timings["read: vector loads"])


def in_memory_rows(settings: Settings) -> Iterator[Row]:
    z, target = logits_of(settings.classes, settings.shape, 0)
    for name, values, reading in (
        ("float32 logits", z, PredictionReading()),
        ("float16 logits", z.half(), PredictionReading()),
        ("float32 probabilities", z.softmax(1), PredictionReading(from_logits=False)),
    ):
        read = harness.readers([values, target])[0].run
        volumes = [(values, target)]
        yield pass_row(f"pass over one volume, {name}", volumes, reading, read, settings.rounds)


def fit_row(files: Files, read: Timing, rounds: int) -> tuple[Row, str]:
    """Time the whole fit of all files, and describe it in a line."""
    fits: list[TemperatureScaling] = []

    def fit() -> TemperatureScaling:
        fits.append(TemperatureScaling().fit_stream(files))
        return fits[-1]

    found = off(float(fit().temperature_), files, PredictionReading())
    if found:
        raise harness.WrongResult(f"temperature {fits[-1].temperature_} is not the minimum")
    seconds = []
    for _ in range(min(rounds, 3)):
        start = time.perf_counter()
        fit()
        seconds.append(time.perf_counter() - start)
    passes = fits[-1].n_passes_
    note = (
        f"fit of {len(files.paths)} volumes: T = {fits[-1].temperature_:.4f} after {passes} passes "
        "over all of them; the first draws a sample, and the second starts from its minimum"
    )
    row = Row("whole fit", Timing("fastcal", seconds, found), None)
    share = min(seconds) / (passes or 1) / read.median
    return row, f"{note}; a pass takes {share:.2f} x the time of reading"


# --- libraries, one volume in memory --------------------------------------------------------------


def peer_row(settings: Settings) -> tuple[Row, list[str]]:
    """Time each library in a process of its own."""
    timings: dict[str, Timing] = {}
    notes = []
    for name in PEERS:
        size = "x".join(map(str, settings.peer_shape))
        command = [sys.executable, "-m", "benchmarks.bench_recalibration", "--peer", name]
        command += ["--shape", size, "--classes", str(settings.classes)]
        command += ["--threads", str(torch.get_num_threads())]
        try:
            run = subprocess.run(
                command,
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
                timeout=settings.patience,
            )
        except subprocess.TimeoutExpired:
            notes.append(f"{name}: more than {settings.patience} s")
            continue
        if run.returncode != 0:
            notes.append(f"{name}: {(run.stderr.strip() or 'failed').splitlines()[-1]}")
            continue
        told = json.loads(run.stdout.splitlines()[-1])
        timings[name] = Timing(name, [told["seconds"]], told["error"])
        notes.append(
            f"{name}: T = {told['temperature']:.4f} in {told['seconds']:.2f} s, "
            f"{told['bytes'] / 1e6:.0f} MB beyond the volume"
        )
    ours = timings.pop("fastcal")
    voxels = int(np.prod(settings.peer_shape))
    return Row(f"fit of one volume of {voxels:,} voxels", ours, None, timings), notes


def fit_by(name: str, z: Tensor, target: Tensor) -> float:
    """Fit the temperature of logits ``[1, C, *S]`` by a library."""
    if name == "fastcal":
        return float(TemperatureScaling().fit(z, target).temperature_)
    if name == "fiducio":
        import fiducio

        made = fiducio.TemperatureScaling(optimizer="lbfgs")
        made.fit(z, target.long())
        return float(made.temperature)
    flat = z[0].flatten(1).T
    if name == "netcal":
        from netcal.scaling import TemperatureScaling as Netcal

        scaling = Netcal()  # its line search fails for float32 probabilities, and finds 1.0
        scaling.fit(flat.double().softmax(1).numpy(), target.flatten().numpy())
        return 1 / float(np.ravel(scaling.temperature)[0])
    from torch.utils.data import DataLoader, TensorDataset
    from torch_uncertainty.post_processing import TemperatureScaler

    scaler = TemperatureScaler()
    data = TensorDataset(flat, target.flatten())
    scaler.fit(DataLoader(data, batch_size=1 << 16), progress=False)
    return float(scaler.temperature[0].detach())


def peer(name: str, classes: int, shape: Sequence[int]) -> None:
    """Run one library, and print seconds, bytes, temperature and error."""
    small = logits_of(classes, (16, 16, 16), 1)
    fit_by(name, *small)  # import modules and start thread pools
    z, target = logits_of(classes, shape, 0)
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    found = fit_by(name, z, target)
    seconds = time.perf_counter() - start
    peak = max(0, status_bytes("VmHWM") - before)
    exact = float(TemperatureScaling().fit(z.double(), target).temperature_)
    error = abs(found - exact) / exact
    if not error <= (TOLERANCE if name == "fastcal" else CALIBRATED):
        raise harness.WrongResult(
            f"T = {found:.4f}, but {exact:.4f} in float64, so it is not timed"
        )
    print(json.dumps({"seconds": seconds, "bytes": peak, "temperature": found, "error": error}))


# --- command line ---------------------------------------------------------------------------------


def run(settings: Settings) -> tuple[list[Row], list[str]]:
    """Measure all rows, and return them with notes."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        files = Files(Path(folder), settings)
        name = f"pass over {settings.volumes} volumes in files"
        rows.append(pass_row(name, files, PredictionReading(), files.read, settings.rounds))
        assert rows[0].floor is not None
        whole, note = fit_row(files, rows[0].floor, settings.rounds)
        rows.append(whole)
    rows += in_memory_rows(settings)
    row, notes = peer_row(settings)
    return [*rows, row], [note, *notes, "errors are relative, of the gradient or the temperature"]


def parse(arguments: Sequence[str] | None) -> tuple[Settings, Path | None, str | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_recalibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--volumes", type=int, default=default.volumes)
    parser.add_argument("--classes", type=int, default=default.classes)
    parser.add_argument("--shape", type=read_volume, default=default.shape, help="200x200x225")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument(
        "--patience", type=int, default=default.patience, help="seconds each library may take"
    )
    parser.add_argument(
        "--folder", type=Path, help="folder in which volumes are written, and removed again"
    )
    parser.add_argument("--quick", action="store_true", help="two small volumes")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        help="folder of the record; without it benchmarks/results, or none with --quick",
    )
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    settings = Settings(
        volumes=given.volumes,
        classes=given.classes,
        shape=given.shape,
        peer_shape=given.shape,
        threads=given.threads,
        rounds=given.rounds,
        patience=given.patience,
        folder=given.folder,
    )
    if given.quick:
        small = (32, 32, 32)
        settings = replace(settings, volumes=2, shape=(80, 80, 80), peer_shape=small, rounds=3)
    return settings, given.out or (None if given.quick else harness.RESULTS), given.peer


def main(arguments: Sequence[str] | None = None) -> None:
    settings, folder, name = parse(arguments)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if name is not None:
        peer(name, settings.classes, settings.shape)
        return
    rows, notes = run(settings)
    shape = " x ".join(map(str, settings.shape))
    title = f"Temperature scaling: {settings.volumes} volumes of {shape}, C = {settings.classes}"
    harness.show(title, rows, notes)
    if folder is not None:
        told = {**asdict(settings), "folder": None}
        path = harness.write("recalibration", title, told, rows, notes, folder=folder)
        print(f"written: {path} and .md")


if __name__ == "__main__":
    main()
