"""log.jsonl: a member's epochs, one JSON object a line."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastcal import atomic
from fastcal.models.run import LOG


@dataclass(frozen=True, slots=True)
class EpochRow:
    """A line of the log; NaN is null in the file."""

    epoch: int
    loss: float
    """Mean over the epoch's steps."""
    val_dice: float
    val_dice_per_class: list[float]
    val_nll: float
    learning_rate: float
    best: bool
    seconds: float


def append_row(folder: Path, row: EpochRow) -> None:
    """Add one epoch to the member's log; NaN becomes null."""
    fields = {name: _null_if_nan(value) for name, value in asdict(row).items()}
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(fields) + "\n")


def read_log(folder: Path) -> list[EpochRow]:
    """Rows of a member's log; a last line still being written is left out."""
    rows: list[EpochRow] = []
    for line in (folder / LOG).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            fields = json.loads(line)
            rows.append(EpochRow(**{name: _nan_if_null(fields[name]) for name in fields}))
    return rows


def forget_later_epochs(folder: Path, epoch: int) -> None:
    """Cut what a killed training logged behind its last checkpoint, a torn last line included."""
    log = folder / LOG
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines()[:epoch]
        atomic.write_text(log, "".join(f"{line}\n" for line in lines))


def _null_if_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_null_if_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nan_if_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan_if_null(item) for item in value]
    return math.nan if value is None else value
