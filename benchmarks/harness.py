"""Paired timing of checked candidates, the read floor of the same process, and their record.

A candidate is timed only after its result passed its check. Candidates are interleaved: one call
of each a round, the order rotated, so that a slow phase of the machine hits all of them; a ratio is
the median of the rounds' own ratios.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"


class WrongResult(AssertionError):
    """A candidate's result is not within its tolerance; no time of it may be printed."""


@dataclass(frozen=True)
class Candidate:
    """Something to time, and how its result is judged."""

    name: str
    run: Callable[[], object]
    error: Callable[[object], float] | None = None
    """Error of the result against the float64 reference; None where there is nothing to judge."""
    tolerance: float = 0.0
    prepare: Callable[[], object] | None = None
    """Called before the judged run alone: wipes outputs that an earlier candidate filled."""


@dataclass(frozen=True)
class Timing:
    """Seconds of every round, and the error the result had before."""

    name: str
    seconds: list[float]
    error: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.seconds)
        return ordered[round((len(ordered) - 1) * percent / 100)]

    def times_faster_than(self, other: Timing) -> float:
        """Median over the rounds of ``other / self``."""
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))


def judge(candidate: Candidate) -> float | None:
    """Run once and return the error; raises `WrongResult` above the tolerance (or on NaN)."""
    if candidate.prepare is not None:
        candidate.prepare()
    result = candidate.run()
    if candidate.error is None:
        return None
    error = candidate.error(result)
    if not error <= candidate.tolerance:
        raise WrongResult(
            f"{candidate.name}: error {error:.3g} above {candidate.tolerance:.3g}; not timed"
        )
    return error


def measure(candidates: Sequence[Candidate], *, rounds: int, warmup: int = 1) -> dict[str, Timing]:
    """Judge every candidate, then time one call of each a round."""
    errors = {candidate.name: judge(candidate) for candidate in candidates}
    for _ in range(warmup):
        for candidate in candidates:
            candidate.run()
    seconds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for i in range(rounds):
        turn = i % len(candidates)
        for candidate in [*candidates[turn:], *candidates[:turn]]:
            start = time.perf_counter()
            candidate.run()
            seconds[candidate.name].append(time.perf_counter() - start)
    return {name: Timing(name, values, errors[name]) for name, values in seconds.items()}


def readers(tensors: Sequence[Tensor]) -> list[Candidate]:
    """Ways to read exactly the bytes of contiguous tensors once, with torch's number of threads.

    `fastcal._cpu.read_bytes` is a loop of plain vector loads. The torch reductions stand in where
    it is not built; they may be bound by arithmetic, hence several: the fastest is the floor.
    """
    words = [t.view(torch.uint8).reshape(-1) for t in tensors]
    words = [w[: w.numel() // 8 * 8] for w in words]
    as_float = [w.view(torch.float32) for w in words]
    as_int = [w.view(torch.int64) for w in words]
    found = [
        Candidate("read: torch.sum float32", lambda: [torch.sum(x) for x in as_float]),
        Candidate("read: torch.amax float32", lambda: [torch.amax(x) for x in as_float]),
        Candidate("read: torch.sum int64", lambda: [torch.sum(x) for x in as_int]),
    ]
    try:
        from fastcal import _cpu
    except ImportError:
        return found

    def read_bytes() -> int:
        threads = torch.get_num_threads()
        return sum(_cpu.read_bytes(w.data_ptr(), w.numel(), threads) for w in words)

    return [Candidate("read: vector loads", read_bytes), *found]


def floor(timings: dict[str, Timing]) -> Timing:
    """The fastest of the `readers` among the timings."""
    return min((t for t in timings.values() if t.name.startswith("read: ")), key=lambda t: t.median)


@dataclass
class Row:
    """One line of the results: a workload, our timing, what it is compared with."""

    workload: str
    fastcal: Timing
    floor: Timing | None = None
    others: dict[str, Timing] = field(default_factory=dict)

    @property
    def floor_share(self) -> float | None:
        return None if self.floor is None else self.fastcal.times_faster_than(self.floor)

    def ratio(self, name: str) -> float | None:
        """How many times faster fastcal is than a column."""
        return self.fastcal.times_faster_than(self.others[name]) if name in self.others else None

    def record(self) -> dict[str, Any]:
        def of(timing: Timing) -> dict[str, Any]:
            return {
                "median_ms": timing.median * 1e3,
                "p20_ms": timing.percentile(20) * 1e3,
                "p80_ms": timing.percentile(80) * 1e3,
                "rounds": len(timing.seconds),
                "error": timing.error,
            }

        return {
            "workload": self.workload,
            "fastcal": of(self.fastcal),
            "floor": None if self.floor is None else {"by": self.floor.name, **of(self.floor)},
            "floor_share": self.floor_share,
            "others": {
                name: {**of(timing), "fastcal_times_faster": self.ratio(name)}
                for name, timing in self.others.items()
            },
        }


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, instruction set, threads, versions, commit."""
    try:
        from fastcal import _cpu

        isa: str | None = _cpu.isa()
    except ImportError:
        isa = None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "isa": isa,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            name: _version(name) for name in ("fastcal", "torch", "torchmetrics", "monai", "numpy")
        },
        "commit": _commit(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or None


COLUMNS = ("eager", "compile", "plain")


def cells(row: Row) -> list[str]:
    """workload, fastcal ms, p20-p80, floor ms, share of floor, then ms and ratio a column."""
    ours, read = row.fastcal, row.floor
    found = [
        row.workload,
        f"{ours.median * 1e3:.2f}",
        f"{ours.percentile(20) * 1e3:.2f}-{ours.percentile(80) * 1e3:.2f}",
        "" if read is None else f"{read.median * 1e3:.2f}",
        "" if row.floor_share is None else f"{row.floor_share:.2f}",
    ]
    for name in COLUMNS:
        there = name in row.others
        found.append(
            f"{row.others[name].median * 1e3:.1f} ({row.ratio(name):.1f}x)" if there else ""
        )
    found.append("" if ours.error is None else f"{ours.error:.1e}")
    return found


HEADINGS = (
    "workload",
    "fastcal ms",
    "p20-p80",
    "floor ms",
    "of floor",
    *(f"{name} ms (ratio)" for name in COLUMNS),
    "error",
)


def markdown(title: str, rows: Sequence[Row], notes: Sequence[str]) -> str:
    about = machine()
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items() if v)
    lines = [
        f"# {title}",
        "",
        f"{about['cpu']}, {about['threads']} threads, {about['isa'] or 'no native module'}; "
        f"{versions}; commit {about['commit']}; {about['date']}. Medians of interleaved rounds.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---" * len(HEADINGS) + "|",
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def write(
    name: str,
    title: str,
    settings: dict[str, Any],
    rows: Sequence[Row],
    notes: Sequence[str],
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write ``results/NAME.json`` and ``.md``; returns the JSON's path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {
        "title": title,
        "machine": machine(),
        "settings": settings,
        "rows": [row.record() for row in rows],
        "notes": list(notes),
        **(extra or {}),
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(title, rows, notes))
    return path
