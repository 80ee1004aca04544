"""Training settings from a preset, a file and options, for the commands that train."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcal.cli.mapping import RUN, any_devices, one_device
from fastcal.core.errors import DataError

if TYPE_CHECKING:
    from fastcal.train import TrainConfig
    from fastcal.train.config import PresetName


class Preset(StrEnum):
    """Names of complete sets of settings."""

    paper = "paper"
    standard = "standard"


class StrategyName(StrEnum):
    """How members share the hardware."""

    auto = "auto"
    sequential = "sequential"
    vectorised = "vectorised"
    processes = "processes"


TRAINING = "Training"
"""Group of options in the help."""

PresetOption = Annotated[
    Preset | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Settings to start from: paper, or standard, which are nnU-Net's usual ones.  "
        "[default: paper]",
        rich_help_panel=TRAINING,
    ),
]
Dims = Annotated[
    int | None,
    typer.Option(
        "--dims",
        metavar="N",
        min=2,
        max=3,
        help="Axes of the networks: 2 for slices, 3 for volumes.  [default: 2]",
        rich_help_panel=TRAINING,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        exists=True,
        help="YAML or JSON file of the settings of a training; command-line options override it.",
        rich_help_panel=TRAINING,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the training, such as loop.ema=0.999.",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        metavar="N",
        min=1,
        help="Maximum number of epochs per member.",
        rich_help_panel=TRAINING,
    ),
]
Iterations = Annotated[
    int | None,
    typer.Option(
        "--iterations",
        metavar="N",
        min=1,
        help="Steps per epoch; without it an epoch sees every slice or volume once.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        min=1,
        help="Slices or patches per step.",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        metavar="RATE",
        min=0,
        help="Initial learning rate of the optimiser.",
        rich_help_panel=TRAINING,
    ),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        "--dropout",
        metavar="RATE",
        min=0,
        max=1,
        help="Dropout rate in the deepest blocks; --mc-dropout needs it above 0.",
        rich_help_panel=TRAINING,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        callback=one_device,
        help="cpu, cuda or cuda:1; by default a GPU if there is one.",
        rich_help_panel=RUN,
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        callback=any_devices,
        help="cpu, cuda or cuda:1, several of them, or all for every GPU; by default a GPU if "
        "there is one.",
        rich_help_panel=RUN,
    ),
]

SHORTCUTS = {
    "epochs": "loop.max_epochs",
    "iterations": "loop.iterations_per_epoch",
    "batch_size": "sampling.batch_size",
    "learning_rate": "optimiser.learning_rate",
    "dropout": "network.dropout",
}
"""Options that stand for a setting of another name."""


def training_config(
    base: TrainConfig | None,
    *,
    preset: PresetName | None = None,
    dims: int | None = None,
    file: Path | None = None,
    values: Sequence[str] | None = None,
    **shortcuts: Any,
) -> TrainConfig:
    """Return the settings that a preset, a file, ``--set`` and options give; later ones win.

    Args:
        base: Settings in place of a preset; None for a preset.
        preset: Its name; by default the file's ``preset:``, else the paper's.
        dims: Axes of the networks, 2 or 3.
        file: YAML or JSON, nested as `TrainConfig` is.
        values: ``NAME=VALUE`` words with dotted names.
        shortcuts: Values by the names of `SHORTCUTS`; None stands for an option not given.

    Raises:
        DataError: The file is missing, is not YAML, or holds something that is not a setting.
        ValueError: A setting is out of range.
    """
    from fastcal.train import TrainConfig

    found = _read(file) if file is not None else {}
    named = preset or found.pop("preset", None)
    asked = dims or _dims_of(found)
    try:
        if base is None or named is not None:
            base = TrainConfig.preset(named or "paper", dims=asked or 2)
        config = base.with_values(found)
        if "network" in found:
            _check_arguments(config)
    except (TypeError, ValueError) as error:
        if file is None:
            raise
        raise DataError(file, str(error)) from error
    given = {SHORTCUTS[name]: value for name, value in shortcuts.items() if value is not None}
    if dims is not None:
        given["preprocessing.dims"] = dims
    return config.with_values({**parse_values(values or ()), **given})


def check_network(config: TrainConfig, trust: Sequence[str], *, source: Path) -> None:
    """Refuse a network that a file names and that is not built in, unless it is trusted.

    What is typed on the command line, by ``--set network.name=...``, needs no check.

    Args:
        config: The settings.
        trust: Packages that the network may be imported from.
        source: The file that named the network.

    Raises:
        UntrustedNetworkError: The network needs trust.
    """
    from fastcal.models.trust import Trust, UntrustedNetworkError

    try:
        Trust(trust).check(config.network.get("name", "UNet"), source=str(source))
    except UntrustedNetworkError:
        raise
    except ValueError as error:
        raise DataError(source, str(error)) from error


def _check_arguments(config: TrainConfig) -> None:
    """Check what a file says of a built-in network, before a dataset says the rest."""
    from fastcal.models.trust import BUILT_IN, check_arguments

    arguments = {key: value for key, value in config.network.items() if key != "name"}
    name = config.network.get("name", "UNet")
    if isinstance(name, str) and name in BUILT_IN:
        arguments.pop("preset", None)
        known = {"in_channels": 1, "num_classes": 2, "dims": config.preprocessing.dims}
        check_arguments(name, {**known, **arguments, "head": config.head})


def _dims_of(found: Mapping[str, Any]) -> int | None:
    section = found.get("preprocessing")
    return section.get("dims") if isinstance(section, Mapping) else None


def parse_values(values: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` words; values are YAML, and ``8,16`` is the list ``[8, 16]``.

    Raises:
        ValueError: A word has no ``=``, or its value is not YAML.

    Example:
        >>> parse_values(["loop.ema=0.99", "sampling.patch=[40, 56, 40]", "loss.name=ce"])
        {'loop.ema': 0.99, 'sampling.patch': [40, 56, 40], 'loss.name': 'ce'}
        >>> parse_values(["network.widths=8,16,32"])
        {'network.widths': [8, 16, 32]}
    """
    check_words(values)
    from fastcal.core.doors import parse_yaml

    found: dict[str, Any] = {}
    for word in values:
        name, _, text = word.partition("=")
        try:
            value = parse_yaml(f"[{text}]" if _NUMBERS.fullmatch(text) else text)
        except ValueError as error:
            raise ValueError(f"--set must be NAME=VALUE with a YAML value, got {word!r}") from error
        found[name] = _number(value) if isinstance(value, str) else value
    return found


def check_words(values: Sequence[str]) -> None:
    """Refuse words of ``--set`` that are not ``NAME=VALUE``, before anything is loaded for them.

    Raises:
        ValueError: A word has no name or no ``=``.
    """
    for word in values:
        name, equals, _ = word.partition("=")
        if not equals or not name:
            raise ValueError(f"--set must be NAME=VALUE, got {word!r}")


_NUMBERS = re.compile(r"[\d.+-]+(,[\d.+-]+)+")
"""A list of numbers without the brackets, which some shells interpret."""


def _number(text: str) -> str | float:
    """Return the number of a word such as ``1e-3``, which YAML takes for a string."""
    try:
        return float(text)
    except ValueError:
        return text


def _read(file: Path) -> dict[str, Any]:
    from fastcal.core.doors import read_yaml

    content = read_yaml(file)
    if not isinstance(content, dict):
        raise DataError(file, "the file must hold settings, one NAME: VALUE per line")
    return content


def parse_split(text: str) -> tuple[int, int, int]:
    """Read ``TRAIN,VAL,TEST``.

    Raises:
        ValueError: The text is not three whole numbers.

    Example:
        >>> parse_split("128,32,42")
        (128, 32, 42)
    """
    try:
        train, val, test = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--split must be TRAIN,VAL,TEST, got {text!r}") from None
    return train, val, test
