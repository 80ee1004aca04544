"""Training settings from a file and from options, for the commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcal.errors import DataError

if TYPE_CHECKING:
    from fastcal.train import TrainConfig

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML or JSON file of fastcal.train.TrainConfig settings; options come before it.",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", help="Train a member for this many epochs at most."),
]
Iterations = Annotated[
    int | None,
    typer.Option(
        "--iterations", metavar="N", help="Steps of an epoch; without it every slice is seen once."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help="Slices of a step.")
]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", metavar="RATE", help="Adam's learning rate at the start."),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        "--dropout", metavar="RATE", help="Rate in the deepest blocks; --mc-dropout needs some."
    ),
]
Jobs = Annotated[
    int, typer.Option("--jobs", metavar="N", help="Members trained at a time, a process each.")
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1; a GPU if there is one."),
]


def training_config(base: TrainConfig, file: Path | None, **options: Any) -> TrainConfig:
    """`base`, overridden by a settings file, overridden by the options that are not None.

    Raises:
        DataError: the file is missing, not YAML, or holds what is no setting.
        ValueError: a setting is out of range.
    """
    from fastcal.train import TrainConfig

    fields = {**base.to_json(), **(_read(file) if file is not None else {})}
    try:
        config = TrainConfig.from_json(fields)
    except (TypeError, ValueError) as error:
        if file is None:
            raise
        raise DataError(file, str(error)) from error
    given = {name: value for name, value in options.items() if value is not None}
    return TrainConfig.from_json({**config.to_json(), **given})


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(file, f"not YAML ({error})") from error
    if not isinstance(content, dict):
        raise DataError(file, "expected settings, one NAME: VALUE a line")
    return content


def parse_split(text: str) -> tuple[int, int, int]:
    """Read ``TRAIN,VAL,TEST``.

    Raises:
        ValueError: not three whole numbers.

    Example:
        >>> parse_split("128,32,42")
        (128, 32, 42)
    """
    try:
        train, val, test = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--split: got {text!r}, expected TRAIN,VAL,TEST") from None
    return train, val, test
