"""Training settings from a preset, a file and options, for the commands that train."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcal.core.errors import DataError

if TYPE_CHECKING:
    from fastcal.train import TrainConfig
    from fastcal.train.config import PresetName


class Preset(StrEnum):
    """Names of whole sets of settings."""

    paper = "paper"
    standard = "standard"


class StrategyName(StrEnum):
    """How members share the hardware."""

    auto = "auto"
    sequential = "sequential"
    vectorised = "vectorised"
    processes = "processes"


PresetOption = Annotated[
    Preset | None,
    typer.Option(
        "--preset",
        help="Settings to begin with: the paper's, or nnU-Net's usual ones.  [default: paper]",
    ),
]
Dims = Annotated[
    int | None,
    typer.Option("--dims", metavar="2|3", help="Slices or volumes.  [default: 2]", min=2, max=3),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML or JSON file of fastcal.train.TrainConfig settings; options come before it.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="One setting, as loop.ema=0.999; several may follow."
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", help="Train a member for this many epochs at most."),
]
Iterations = Annotated[
    int | None,
    typer.Option(
        "--iterations",
        metavar="N",
        help="Steps of an epoch; without it every slice or volume is seen once.",
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help="Slices or patches of a step.")
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate", metavar="RATE", help="The optimiser's learning rate at the start."
    ),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        "--dropout", metavar="RATE", help="Rate in the deepest blocks; --mc-dropout needs some."
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1; a GPU if there is one."),
]

SHORTCUTS = {
    "epochs": "loop.max_epochs",
    "iterations": "loop.iterations_per_epoch",
    "batch_size": "sampling.batch_size",
    "learning_rate": "optimiser.learning_rate",
    "dropout": "network.dropout",
}
"""Options that are settings of another name."""


def training_config(
    base: TrainConfig | None,
    *,
    preset: PresetName | None = None,
    dims: int | None = None,
    file: Path | None = None,
    values: Sequence[str] | None = None,
    **shortcuts: Any,
) -> TrainConfig:
    """Settings from what was given: preset, file, ``--set``, options; later ones come first.

    Args:
        base: settings in place of a preset; None: a preset.
        preset: its name; else the file's ``preset:``, else the paper's.
        dims: of the networks.
        file: YAML or JSON, nested as `TrainConfig` is.
        values: ``NAME=VALUE``, by dotted name.
        shortcuts: by the names of `SHORTCUTS`; None is not given.

    Raises:
        DataError: the file is missing, not YAML, or holds what is no setting.
        ValueError: a setting is out of range.
    """
    from fastcal.train import TrainConfig

    found = _read(file) if file is not None else {}
    named = preset or found.pop("preset", None)
    asked = dims or _dims_of(found)
    try:
        if base is None or named is not None:
            base = TrainConfig.preset(named or "paper", dims=asked or 2)
        config = base.with_values(found)
    except (TypeError, ValueError) as error:
        if file is None:
            raise
        raise DataError(file, str(error)) from error
    given = {SHORTCUTS[name]: value for name, value in shortcuts.items() if value is not None}
    if dims is not None:
        given["preprocessing.dims"] = dims
    return config.with_values({**parse_values(values or ()), **given})


def _dims_of(found: Mapping[str, Any]) -> int | None:
    section = found.get("preprocessing")
    return section.get("dims") if isinstance(section, Mapping) else None


def parse_values(values: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` words; values are YAML, and ``8,16`` is the list ``[8, 16]``.

    Raises:
        ValueError: a word without ``=``, or a value that is no YAML.

    Example:
        >>> parse_values(["loop.ema=0.99", "sampling.patch=[40, 56, 40]", "loss.name=ce"])
        {'loop.ema': 0.99, 'sampling.patch': [40, 56, 40], 'loss.name': 'ce'}
        >>> parse_values(["network.widths=8,16,32"])
        {'network.widths': [8, 16, 32]}
    """
    import yaml

    found: dict[str, Any] = {}
    for word in values:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ValueError(f"--set: got {word!r}, expected NAME=VALUE")
        try:
            value = yaml.safe_load(f"[{text}]" if _NUMBERS.fullmatch(text) else text)
        except yaml.YAMLError as error:
            raise ValueError(f"--set: got {word!r}, whose value is no YAML") from error
        found[name] = _number(value) if isinstance(value, str) else value
    return found


_NUMBERS = re.compile(r"[\d.+-]+(,[\d.+-]+)+")
"""A list of numbers without the brackets, which mean something to some shells."""


def _number(text: str) -> str | float:
    """``1e-3``, which YAML takes for a string."""
    try:
        return float(text)
    except ValueError:
        return text


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
