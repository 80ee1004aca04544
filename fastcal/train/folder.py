"""The run folder: complete before training starts, and compared when training is resumed."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastcal.core import atomic
from fastcal.core.doors import read_bytes
from fastcal.core.errors import DataError
from fastcal.core.places import check_out_folder, check_outputs, check_own
from fastcal.data.dataset import Dataset
from fastcal.models.run import CONFIG, DATASET, FORMAT, SPLITS, Run
from fastcal.train.config import TrainConfig

FREE = frozenset(
    f"training.loop.{name}"
    for name in ("checkpointing", "checkpoint_steps", "compile", "keep_epochs", "tensorboard")
)
"""Settings that may change when a run is resumed, because the weights do not depend on them."""


_OF_CASES = re.compile(r"(images|labels)\w*")
"""Folders of nnU-Net's raw layout."""

MEMBERS = 5
"""Default number of members."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The settings with which the run in a folder was begun."""

    config: TrainConfig
    seed: int
    members: int
    """The largest number of members that was ever asked for."""
    split: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path) -> Begun | None:
        """Read a run folder; None where there is no run yet, or one of an older version.

        Raises:
            DataError: Its files cannot be read.
        """
        if not (folder / CONFIG).exists():
            return None
        run = Run.open(folder)
        if run.config["format"] != FORMAT:
            return None
        try:
            config, seed = TrainConfig.from_json(run.config["training"]), run.config["seed"]
        except Exception as error:  # whatever content of another kind leads to
            raise DataError(
                folder / CONFIG, f"does not hold the settings of a run ({error})"
            ) from error
        return cls(config, seed, run.config.get("members", MEMBERS), run.split)


def check_place(folder: Path, dataset: Dataset, prepared: Path | None = None) -> None:
    """Refuse to train into the dataset, or into a folder that holds something else.

    Args:
        folder: The run folder, which may be missing.
        dataset: The dataset of the run.
        prepared: Folder of the cache, where it is not that of the run.

    Raises:
        DataError: An output would lie where the dataset or other data lies.
    """
    described = dataset.folder / DATASET
    files = [path for case in dataset.cases for path in (*case.images, case.label) if path]
    read = {path.parent for path in files} | {dataset.folder}
    read |= {entry for entry in dataset.folder.glob("[il]*") if _OF_CASES.fullmatch(entry.name)}
    for place in (folder, prepared):
        if place is not None:
            check_out_folder(place, sorted(read))
    written = [folder / name for name in (DATASET, SPLITS, CONFIG)]
    check_outputs(written, [described, *dataset.folder.glob("splits*.json"), *files])
    if (folder / CONFIG).exists():
        return
    # A training that was killed while it made the folder left a copy of the dataset's.
    begun = (folder / DATASET).is_file() and read_bytes(folder / DATASET) == read_bytes(described)
    check_own(folder, but=(DATASET, SPLITS) if begun else ())


def create(
    folder: Path, settings: Mapping[str, Any], dataset: Dataset, split: Mapping[str, list[str]]
) -> Run:
    """Create a run folder. It writes config.json last, so that a folder with it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    description = (dataset.folder / DATASET).read_text(encoding="utf-8")
    atomic.write_text(folder / DATASET, description)
    atomic.write_json(folder / SPLITS, split)
    atomic.write_json(folder / CONFIG, {"format": FORMAT, **settings, "environment": environment()})
    return Run.open(folder)


def check_same(
    existing: Run, settings: Mapping[str, Any], split: Mapping[str, list[str]] | None = None
) -> None:
    """Refuse to continue in the folder of another run.

    Args:
        existing: The run that is there.
        settings: The settings asked for, nested; only these are compared.
        split: Case names of each part.

    Raises:
        DataError: A setting differs (the first one is named), or the run is of an older version.
    """
    if existing.config["format"] != FORMAT:
        raise DataError(
            existing.path,
            "holds a run of an older version of fastcal, which cannot be resumed; choose another "
            "folder (prediction still reads it)",
        )
    asked, there = flat(settings), flat(existing.config)
    if split is not None:
        asked, there = asked | flat({"split": split}), there | flat({"split": existing.split})
    for name, value in asked.items():
        if name not in FREE and there.get(name) != value:
            raise DataError(
                existing.path,
                f"holds a run with another {name}: {_short(there.get(name))} there, "
                f"{_short(value)} asked for",
            )


def want(existing: Run, members: int) -> Run:
    """Record the number of members, if it is larger than any asked for before."""
    if members <= existing.config.get("members", 0):
        return existing
    atomic.write_json(existing.path / CONFIG, {**existing.config, "members": members})
    return Run.open(existing.path)


def environment() -> dict[str, Any]:
    """Describe what the numbers may depend on apart from the settings."""
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
    """Flatten nested settings to dotted names, with tuples as lists, as in JSON."""
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
