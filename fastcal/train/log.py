"""The log of a member: log.jsonl, one JSON object per epoch, and TensorBoard's event files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastcal.core import atomic
from fastcal.core.doors import one_error, read_json_lines, read_text
from fastcal.models.run import LOG

EVENTS = "tensorboard"


@dataclass(frozen=True, slots=True)
class EpochRow:
    """A row of the log; the file stores NaN as null."""

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
        epochs: Epochs done so far. Rows beyond them, from a training that was killed, are removed.
        tensorboard: Write event files too, where TensorBoard is installed.
    """

    def __init__(self, folder: Path, epochs: int, *, tensorboard: bool) -> None:
        self._file = folder / LOG
        if self._file.exists():
            lines = read_text(self._file).splitlines()[:epochs]
            atomic.write_text(self._file, "".join(f"{line}\n" for line in lines))
        self._events: Any = _event_writer(folder / EVENTS, epochs + 1) if tensorboard else None

    def append(self, row: EpochRow) -> None:
        """Add one epoch.

        Raises:
            OSError: The disk reports an error, for example that it is full.
        """
        fields = {name: _null_if_nan(value) for name, value in asdict(row).items()}
        try:
            with self._file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(fields) + "\n")
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
    """Read the rows of a member's log, except for a last line that is still being written."""
    rows = read_json_lines(folder / LOG, dict[str, Any])
    with one_error(folder / LOG, "the log of a member"):
        return [EpochRow(**{name: _nan_if_null(row[name]) for name in row}) for row in rows]


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
