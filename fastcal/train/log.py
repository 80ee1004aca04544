"""The log of a member: log.jsonl, one JSON object per epoch, and TensorBoard's event files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastcal.core import atomic
from fastcal.core.doors import read_json_lines, validated
from fastcal.core.errors import DataError
from fastcal.models.run import LOG

EVENTS = "tensorboard"
_MOST_BYTES = 32 << 20
"""Of a log: about 100,000 epochs."""


@dataclass(frozen=True, slots=True)
class EpochRow:
    """A row of the log; the file stores NaN as null."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    epoch: int
    loss: float
    """Mean over the steps of the epoch."""
    val_dice: float
    val_dice_per_class: list[float]
    val_nll: float
    learning_rate: float
    """Rate of the last step of the epoch."""
    best: bool
    seconds: float
    """Duration with validation; for members trained together, that of all of them."""
    val_ece: float = math.nan
    """Expected calibration error of the top label with 15 bins, as a fraction."""


class MemberLog:
    """Writes the epochs of a member, and continues the log of a training that is resumed.

    Args:
        folder: The folder of the member.
        epochs: Epochs done so far. Rows beyond them, from a training that was killed, are removed,
            and so is a last line that was being written.
        tensorboard: Write event files too, where TensorBoard is installed.

    Raises:
        DataError: A row of the log is damaged.
    """

    def __init__(self, folder: Path, epochs: int, *, tensorboard: bool) -> None:
        self._file = folder / LOG
        if os.path.lexists(self._file):
            rows = [row for row in read_log(folder) if row.epoch <= epochs]
            atomic.write_text(self._file, "".join(f"{_line(row)}\n" for row in rows))
        self._events: Any = _event_writer(folder / EVENTS, epochs + 1) if tensorboard else None

    def append(self, row: EpochRow) -> None:
        """Add one epoch.

        Raises:
            OSError: The disk reports an error, for example that it is full.
        """
        try:
            with self._file.open("a", encoding="utf-8") as log:
                log.write(_line(row) + "\n")
        except OSError as error:  # the error of a full disk does not name the file
            raise OSError(error.errno, error.strerror, str(self._file)) from error
        if self._events is not None:
            for name, value in _scalars(row):
                self._events.add_scalar(name, value, row.epoch)

    def close(self) -> None:
        """Close the event files."""
        if self._events is not None:
            self._events.close()


def read_log(folder: Path) -> list[EpochRow]:
    """Read the rows of a member's log, except for a last line that is still being written.

    Raises:
        DataError: There is no log, or a row of it is damaged.
    """
    file = folder / LOG
    rows: list[EpochRow] = []
    for number, row in enumerate(
        read_json_lines(file, dict[str, Any], most_bytes=_MOST_BYTES), start=1
    ):
        fields = {name: _nan_if_null(value) for name, value in row.items()}
        rows.append(validated(file, fields, EpochRow, where=f"line {number}"))
        before = rows[-2].epoch if number > 1 else 0
        if rows[-1].epoch <= before:
            raise DataError(
                file, f"line {number}: epoch must be above {before}, got {rows[-1].epoch}"
            )
    return rows


def _line(row: EpochRow) -> str:
    return json.dumps({name: _null_if_nan(value) for name, value in asdict(row).items()})


def _event_writer(folder: Path, next_epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=next_epoch)


def _scalars(row: EpochRow) -> Iterator[tuple[str, float]]:
    yield "training/loss", row.loss
    yield "training/learning_rate", row.learning_rate
    yield "validation/dice", row.val_dice
    for number, dice in enumerate(row.val_dice_per_class):
        yield f"validation/dice_class_{number}", dice
    yield "validation/nll", row.val_nll
    yield "validation/ece", row.val_ece


def _null_if_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_null_if_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nan_if_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan_if_null(item) for item in value]
    return math.nan if value is None else value
