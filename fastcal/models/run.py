"""The folder of a trained ensemble: what `fastcal.train` writes and prediction reads.

::

    RUN/config.json      dataset, loss, seed, network, preprocessing, training settings, environment
    RUN/dataset.json     copy of the dataset's
    RUN/splits.json      case names: train, val, test
    RUN/member_00/       best.pt last.pt log.jsonl curves.png; member.json once training has ended
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastcal.data.preprocess import Preprocessing
from fastcal.errors import DataError
from fastcal.models.unet import UNet

FORMAT = 1
CONFIG, SPLITS, DATASET = "config.json", "splits.json", "dataset.json"
BEST, LAST, LOG, CURVES, FINISHED = "best.pt", "last.pt", "log.jsonl", "curves.png", "member.json"


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
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise DataError(folder / CONFIG, "not the configuration of a fastcal run")
        return cls(folder, config)

    @property
    def members(self) -> list[Path]:
        """Folders of the members whose training has ended, by number."""
        return sorted(path.parent for path in self.path.glob(f"member_*/{FINISHED}"))

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


def load_member(path: str | Path, device: torch.device | str = "cpu") -> UNet:
    """A trained member in evaluation mode, with the weights of its best validation Dice.

    Args:
        path: a member's folder (one of `Run.members`), or a best.pt.
        device: where the network goes.

    Raises:
        DataError: no checkpoint there, or one that cannot be read.

    Example:
        >>> network = load_member("runs/ce/member_00")  # doctest: +SKIP
        >>> network(slices).shape  # logits [B, C, Y, X] of slices [B, Ch, Y, X]  # doctest: +SKIP
        torch.Size([8, 4, 112, 112])
    """
    file = Path(path)
    if file.is_dir():
        file = file / BEST
    checkpoint = read_checkpoint(file)
    try:
        model = UNet(**checkpoint["network"])
        model.load_state_dict(checkpoint["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(file, f"not a member's checkpoint ({reason})") from error
    return model.to(device).eval()


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
