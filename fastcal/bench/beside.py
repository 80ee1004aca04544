"""Runs of the benchmark on several devices side by side, from their ``kernels.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcal.bench.points import AXES
from fastcal.core.doors import read_json
from fastcal.core.errors import DataError

_SHARES = ("share_of_copy", "share_of_clone")


@dataclass(frozen=True)
class DeviceRun:
    """What one file says of its device."""

    device: str
    rows: dict[tuple[str, ...], tuple[float | None, float | None]]
    """Values of `AXES` to the shares of copy and clone."""


def read_run(file: Path) -> DeviceRun:
    """Read a ``kernels.json``.

    Raises:
        DataError: The file is none, or cannot be read.
    """
    try:
        return run_of(read_json(file))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(file, f"not a kernels.json of fastcal bench ({reason})") from None


def run_of(found: dict[str, Any]) -> DeviceRun:
    """Take what is shown from the JSON of a run; see `fastcal.bench.record.to_json`."""
    gpus = (found["machine"]["gpu"] or {}).get("devices") or ()
    on_gpu = str(found["device"]).startswith("cuda")
    name = str(gpus[0]).partition(",")[0] if gpus and on_gpu else str(found["machine"]["cpu"])
    rows = {_key(row): (_number(row, 0), _number(row, 1)) for row in found["rows"]}
    return DeviceRun(name, rows)


def table(runs: Sequence[DeviceRun]) -> str:
    """Format the shares of every point that some run has, one pair of columns per device.

    Args:
        runs: At least one run. Of two runs on one device, both are shown.

    Example:
        >>> key = ("float32", "4", "5", "96 x 96 x 96", "0.95", "ncdhw", "entropy")
        >>> print(table([DeviceRun("H100", {key: (0.85, 0.83)}), DeviceRun("H200", {})]))
        | point | H100: of copy | of clone | H200: of copy | of clone |
        |---|---:|---:|---:|---:|
        | float32, C 4, M 5, 96 x 96 x 96, 0.95 background, ncdhw, entropy | 0.85 | 0.83 |  |  |
    """
    heads = ["point", *(text for run in runs for text in (f"{run.device}: of copy", "of clone"))]
    lines = [_line(heads), "|---" + "|---:" * (2 * len(runs)) + "|"]
    for key in dict.fromkeys(key for run in runs for key in run.rows):
        dtype, classes, members, volume, background, layout, outputs = key
        name = (
            f"{dtype}, C {classes}, M {members}, {volume}, {background} background, {layout}, "
            f"{outputs}"
        )
        pairs = [run.rows.get(key, (None, None)) for run in runs]
        cells = ["" if share is None else f"{share:.2f}" for pair in pairs for share in pair]
        lines.append(_line([name, *cells]))
    return "\n".join(lines)


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    values = [row[axis] for axis in AXES]
    return tuple(" x ".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for v in values)


def _number(row: dict[str, Any], which: int) -> float | None:
    value = row[_SHARES[which]]
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"{_SHARES[which]} is {value!r}")
    return value


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
