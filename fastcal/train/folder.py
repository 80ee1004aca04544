"""The run folder: made whole before training starts, and compared when training goes on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.data.dataset import Dataset
from fastcal.models.run import CONFIG, DATASET, FORMAT, SPLITS, Run
from fastcal.train.config import TrainConfig

FREE = frozenset(
    f"training.loop.{name}"
    for name in ("checkpointing", "checkpoint_steps", "compile", "tensorboard")
)
"""Settings that may change when a run goes on: the weights do not depend on them."""


MEMBERS = 5
"""Of an ensemble, where nobody says."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What the run in a folder was begun with."""

    config: TrainConfig
    seed: int
    members: int
    """How many there shall be: the most that were ever asked for."""
    split: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path) -> Begun | None:
        """Of a run folder; None where there is no run yet, or one of an older version.

        Raises:
            DataError: its files cannot be read.
        """
        if not (folder / CONFIG).exists():
            return None
        run = Run.open(folder)
        if run.config["format"] != FORMAT:
            return None
        try:
            config, seed = TrainConfig.from_json(run.config["training"]), run.config["seed"]
        except (KeyError, ValueError) as error:
            raise DataError(folder / CONFIG, f"not the settings of a run ({error})") from error
        return cls(config, seed, run.config.get("members", MEMBERS), run.split)


def create(
    folder: Path, settings: Mapping[str, Any], dataset: Dataset, split: Mapping[str, list[str]]
) -> Run:
    """Make a run folder; config.json comes last, so that a folder with it has everything."""
    folder.mkdir(parents=True, exist_ok=True)
    description = (dataset.folder / DATASET).read_text(encoding="utf-8")
    atomic.write_text(folder / DATASET, description)
    atomic.write_json(folder / SPLITS, split)
    atomic.write_json(folder / CONFIG, {"format": FORMAT, **settings, "environment": environment()})
    return Run.open(folder)


def check_same(
    existing: Run, settings: Mapping[str, Any], split: Mapping[str, list[str]] | None = None
) -> None:
    """Refuse to go on in the folder of another run.

    Args:
        existing: what is there.
        settings: nested, those asked for; others are not compared.
        split: case names of each part.

    Raises:
        ValueError: a setting differs (the first one is named), or the run is of an older version.
    """
    if existing.config["format"] != FORMAT:
        raise ValueError(
            f"{existing.path}: holds a run of an older version of fastcal, which cannot go on; "
            "choose another folder (prediction still reads it)"
        )
    asked, there = flat(settings), flat(existing.config)
    if split is not None:
        asked, there = asked | flat({"split": split}), there | flat({"split": existing.split})
    for name, value in asked.items():
        if name not in FREE and there.get(name) != value:
            raise ValueError(
                f"{existing.path}: holds a run with another {name}: "
                f"{_short(there.get(name))} there, {_short(value)} asked for"
            )


def want(existing: Run, members: int) -> Run:
    """Note how many members there shall be, if they are more than were asked for before."""
    if members <= existing.config.get("members", 0):
        return existing
    atomic.write_json(existing.path / CONFIG, {**existing.config, "members": members})
    return Run.open(existing.path)


def environment() -> dict[str, Any]:
    """What the numbers may depend on beside the settings."""
    from importlib.metadata import version

    gpu = torch.cuda.is_available()
    return {
        "fastcal": version("fastcal"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if gpu else None,
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, tuples as JSON's lists."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = _listed(value)
    return found


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
