"""The folder of a trained ensemble: what `fastcal.train` writes and prediction reads.

::

    RUN/config.json      dataset, loss, seed, network, preprocessing, training settings, environment
    RUN/dataset.json     copy of the dataset's
    RUN/splits.json      case names: train, val, test
    RUN/member_00/       best.safetensors last.pt log.jsonl curves.png; member.json once training
                         has ended

Runs of before have best.pt in place of best.safetensors; they are read too.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastcal.core.errors import DataError
from fastcal.data.preprocess import Preprocessing
from fastcal.models.network import SegmentationNetwork
from fastcal.models.weights import Weights, read_weights

FORMAT = 2
_READABLE = (1, 2)
CONFIG, SPLITS, DATASET = "config.json", "splits.json", "dataset.json"
WEIGHTS, LAST, LOG, CURVES = "best.safetensors", "last.pt", "log.jsonl", "curves.png"
BEST, FINISHED = "best.pt", "member.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder opened for reading.

    Example:
        >>> run = Run.open("runs/ce")  # doctest: +SKIP
        >>> models = (load_member(member) for member in run.members)  # doctest: +SKIP
    """

    path: Path
    config: dict[str, Any]
    """The whole of config.json."""

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read RUN/config.json.

        Raises:
            DataError: no run folder, or one that this version cannot read.
        """
        folder = Path(path)
        config = read_json(folder / CONFIG)
        if not isinstance(config, dict) or config.get("format") not in _READABLE:
            raise DataError(folder / CONFIG, "not the configuration of a fastcal run")
        return cls(folder, config)

    @property
    def members(self) -> list[Path]:
        """Folders of the members whose training has ended, by number."""
        return sorted(path.parent for path in self.path.glob(f"member_*/{FINISHED}"))

    def chosen(self, numbers: Sequence[int] | None) -> list[Path]:
        """Folders of the finished members of these numbers, all of them where None.

        Raises:
            DataError: no member is finished.
            ValueError: no number, or one without a finished member.
        """
        folders = self.members
        if not folders:
            raise DataError(self.path, "no member whose training has ended")
        if numbers is None:
            return folders
        if not numbers:
            raise ValueError("members: got none, expected at least one number")
        by_number = {int(folder.name.rpartition("_")[2]): folder for folder in folders}
        for number in numbers:
            if number not in by_number:
                raise ValueError(f"members: got {number}, expected some of {sorted(by_number)}")
        return [by_number[number] for number in numbers]

    @property
    def unfinished(self) -> list[Path]:
        """Folders of the members whose training has begun but not ended."""
        begun = sorted(path.parent for path in self.path.glob(f"member_*/{LAST}"))
        return [folder for folder in begun if not (folder / FINISHED).exists()]

    @property
    def loss(self) -> str:
        return str(self.config["loss"])

    @property
    def head(self) -> str:
        """``"softmax"`` or ``"sigmoid"``: how the members' logits become probabilities."""
        return str(self.config["network"]["head"])

    @property
    def num_classes(self) -> int:
        return int(self.config["network"]["num_classes"])

    @property
    def dims(self) -> int:
        """Spatial axes the networks see: 2 for slices, 3 for volumes."""
        return int(self.config["network"]["dims"])

    @property
    def patch(self) -> tuple[int, ...] | None:
        """Extents the networks were trained on; None where those are whole slices or volumes."""
        extents = self.config.get("patch")
        return None if extents is None else tuple(int(extent) for extent in extents)

    @property
    def labels(self) -> dict[str, int]:
        """Class names to values, the background 0 among them."""
        return dict(self.config["dataset"]["labels"])

    @property
    def channel_names(self) -> list[str]:
        return list(self.config["dataset"]["channel_names"])

    @property
    def ignore_label(self) -> int | None:
        value = self.config["dataset"]["ignore_label"]
        return None if value is None else int(value)

    @property
    def file_ending(self) -> str:
        return str(self.config["dataset"]["file_ending"])

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_json(self.config["preprocessing"])

    @property
    def split(self) -> dict[str, list[str]]:
        """Case names of ``train``, ``val`` and ``test``."""
        names: dict[str, list[str]] = read_json(self.path / SPLITS)
        return names


def load_member(path: str | Path, device: torch.device | str = "cpu") -> SegmentationNetwork:
    """A trained member in evaluation mode, with the weights of its best validation score.

    Args:
        path: a member's folder (one of `Run.members`), or a file of weights.
        device: where the network goes.

    Raises:
        DataError: no checkpoint there, or one that cannot be read.
        ImportError: the package of its class is not installed.

    Example:
        >>> network = load_member("runs/ce/member_00")  # doctest: +SKIP
        >>> network(slices).shape  # logits [B, C, Y, X] of slices [B, Ch, Y, X]  # doctest: +SKIP
        torch.Size([8, 4, 112, 112])
    """
    return member_weights(path).build().to(device)


def member_weights(path: str | Path) -> Weights:
    """Specification and state of a member: of its folder's best weights, or of a file.

    Raises:
        DataError: no checkpoint there, or one that cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        file = weights_file(file)
    if file.suffix == ".safetensors":
        return read_weights(file)
    checkpoint = read_checkpoint(file)
    try:
        return Weights(file, checkpoint["network"], checkpoint["model"])
    except KeyError as error:
        raise DataError(file, f"not a member's checkpoint (no {error})") from error


def weights_file(folder: Path) -> Path:
    """Where the best weights of a member lie."""
    old = folder / BEST
    return old if old.exists() and not (folder / WEIGHTS).exists() else folder / WEIGHTS


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents on the CPU, without executing what it may hold.

    Raises:
        DataError: the file is missing, cut short, or no checkpoint.
    """
    try:
        contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(path, "no such checkpoint") from error
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise DataError(path, "damaged, or not a checkpoint") from error
    return contents


def read_json(path: Path) -> Any:
    """Contents of a JSON file.

    Raises:
        DataError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except ValueError as error:
        raise DataError(path, f"not JSON ({error})") from error
