"""Rows of paired timings beside the read floor of the same process, and their record.

`fastcal.bench.timing` measures: it checks candidates and interleaves them in rounds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcal.bench.machine import headline, machine
from fastcal.bench.timing import Candidate, Timing, WrongResult, judge, measure

__all__ = [
    "RESULTS",
    "Candidate",
    "Row",
    "Timing",
    "WrongResult",
    "columns",
    "floor",
    "judge",
    "machine",
    "markdown",
    "measure",
    "readers",
    "show",
    "write",
]

RESULTS = Path(__file__).parent / "results"


def readers(tensors: Sequence[Tensor]) -> list[Candidate]:
    """List ways to read the bytes of contiguous tensors once, with torch's number of threads.

    `fastcal._cpu.read_bytes` is a loop of plain vector loads. Reductions of torch stand in for it
    where it is not built. They may be bound by arithmetic, so there are several, and the fastest of
    them is the floor.
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
    """Find the fastest of the `readers` among the timings."""
    return min((t for t in timings.values() if t.name.startswith("read: ")), key=lambda t: t.median)


@dataclass
class Row:
    """One line of the results: a workload, our timing, and those it is compared with."""

    workload: str
    fastcal: Timing
    floor: Timing | None = None
    others: dict[str, Timing] = field(default_factory=dict)

    @property
    def floor_share(self) -> float | None:
        return None if self.floor is None else self.fastcal.times_faster_than(self.floor)

    def ratio(self, name: str) -> float | None:
        """Compute how many times faster fastcal is than a column."""
        return self.fastcal.times_faster_than(self.others[name]) if name in self.others else None

    def record(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "fastcal": self.fastcal.record(),
            "floor": None if self.floor is None else {"by": self.floor.name, **self.floor.record()},
            "floor_share": self.floor_share,
            "others": {
                name: {**timing.record(), "fastcal_times_faster": self.ratio(name)}
                for name, timing in self.others.items()
            },
        }


def columns(rows: Sequence[Row]) -> list[str]:
    """List what the rows are compared with, in the order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.others))


def headings(names: Sequence[str]) -> list[str]:
    """Give the headings of `cells`."""
    before = ["workload", "fastcal ms", "p20-p80", "floor ms", "of floor"]
    return [*before, *(f"{name} ms (ratio)" for name in names), "error"]


def cells(row: Row, names: Sequence[str]) -> list[str]:
    """Format workload, ms of fastcal, p20-p80, floor, its share, and ms and ratio per column."""
    ours, read = row.fastcal, row.floor
    found = [
        row.workload,
        f"{ours.median * 1e3:.2f}",
        f"{ours.percentile(20) * 1e3:.2f}-{ours.percentile(80) * 1e3:.2f}",
        "" if read is None else f"{read.median * 1e3:.2f}",
        "" if row.floor_share is None else f"{row.floor_share:.2f}",
    ]
    for name in names:
        there = name in row.others
        found.append(
            f"{row.others[name].median * 1e3:.1f} ({row.ratio(name):.1f}x)" if there else ""
        )
    found.append("" if ours.error is None else f"{ours.error:.1e}")
    return found


def markdown(title: str, rows: Sequence[Row], notes: Sequence[str], *, gpu: bool = False) -> str:
    """Format title, machine, one table and notes."""
    names = columns(rows)
    heads = headings(names)
    lines = [
        f"# {title}",
        "",
        f"{headline(machine(gpu=gpu))}. Medians of interleaved rounds.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
        *("| " + " | ".join(cells(row, names)) + " |" for row in rows),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def show(title: str, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Print the table and the notes."""
    from rich.console import Console
    from rich.table import Table

    names = columns(rows)
    table = Table(title=title)
    for heading in headings(names):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    for row in rows:
        table.add_row(*cells(row, names))
    console = Console()
    console.width = max(console.width, 160)
    console.print(table)
    for note in notes:
        console.print(f"- {note}", highlight=False)


def write(
    name: str,
    title: str,
    settings: dict[str, Any],
    rows: Sequence[Row],
    notes: Sequence[str],
    extra: dict[str, Any] | None = None,
    *,
    folder: Path = RESULTS,
    gpu: bool = False,
) -> Path:
    """Write ``FOLDER/NAME.json`` and ``.md``, and return the path of the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    record = {
        "title": title,
        "machine": machine(gpu=gpu),
        "settings": settings,
        "rows": [row.record() for row in rows],
        "notes": list(notes),
        **(extra or {}),
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(title, rows, notes, gpu=gpu))
    return path
