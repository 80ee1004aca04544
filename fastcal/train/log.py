"""log.jsonl: a member's epochs, one JSON object a line; event files, where TensorBoard is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastcal.core import atomic
from fastcal.models.run import LOG

EVENTS = "tensorboard"


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
    """Of the epoch's last step."""
    best: bool
    seconds: float
    """With validation; of members trained together, the epoch of all."""
    val_ece: float = math.nan
    """15 bins, top label; a fraction."""


class MemberLog:
    """Writes a member's epochs, as a training that was resumed goes on.

    Args:
        folder: of the member.
        epochs: done so far; what a killed training logged beyond them is forgotten.
        tensorboard: write event files too, where TensorBoard is installed.
    """

    def __init__(self, folder: Path, epochs: int, *, tensorboard: bool) -> None:
        self._file = folder / LOG
        if self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines()[:epochs]
            atomic.write_text(self._file, "".join(f"{line}\n" for line in lines))
        self._events: Any = _event_writer(folder / EVENTS, epochs + 1) if tensorboard else None

    def append(self, row: EpochRow) -> None:
        """Add one epoch; NaN becomes null."""
        fields = {name: _null_if_nan(value) for name, value in asdict(row).items()}
        try:
            with self._file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(fields) + "\n")
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, error.strerror, str(self._file)) from error
        if self._events is not None:
            for name, value in _scalars(row):
                self._events.add_scalar(name, value, row.epoch)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def read_log(folder: Path) -> list[EpochRow]:
    """Rows of a member's log; a last line still being written is left out."""
    rows: list[EpochRow] = []
    for line in (folder / LOG).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            fields = json.loads(line)
            rows.append(EpochRow(**{name: _nan_if_null(fields[name]) for name in fields}))
    return rows


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
