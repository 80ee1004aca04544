"""The folder of a trained ensemble, which `fastcal.train` writes and prediction reads.

::

    RUN/config.json      dataset, loss, seed, network, preprocessing, training settings, environment
    RUN/dataset.json     copy of the dataset's
    RUN/splits.json      case names: train, val, test
    RUN/member_00/       best.safetensors, last.pt, log.jsonl, curves.png; member.json once training
                         is finished

Older runs have best.pt in place of best.safetensors; they can be read, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastcal.core.doors import digest, read_checkpoint, read_json, validated
from fastcal.core.errors import DataError, DataWarning
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
    """The contents of config.json."""

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read RUN/config.json.

        Raises:
            DataError: There is no run folder, this version cannot read it, or its entries are of
                another type, out of range or contradict each other.
        """
        from fastcal.models.run_schema import RunConfig

        folder = Path(path)
        config = read_json(folder / CONFIG)
        if not isinstance(config, dict) or config.get("format") not in _READABLE:
            raise DataError(folder / CONFIG, "is not the configuration of a fastcal run")
        validated(folder / CONFIG, config, RunConfig)
        return cls(folder, config)

    @property
    def members(self) -> list[Path]:
        """Folders of the members whose training is finished, by number."""
        return sorted(path.parent for path in self.path.glob(f"member_*/{FINISHED}"))

    def chosen(
        self, numbers: Sequence[int] | None, *, allow_duplicates: bool = False
    ) -> list[Path]:
        """Return the folders of finished members, by number.

        Args:
            numbers: Numbers of the members; None for all finished ones.
            allow_duplicates: A number may be there twice, and counts twice; so may its weights.

        Raises:
            DataError: No member is finished, or two have the same weights.
            ValueError: There is no number, one without a finished member, or one twice.
        """
        folders = self.members
        if not folders:
            raise DataError(self.path, "has no member whose training is finished")
        if numbers is None:
            return folders if allow_duplicates else _different(folders)
        if not numbers:
            raise ValueError("members must hold at least one number, got none")
        by_number = {int(folder.name.rpartition("_")[2]): folder for folder in folders}
        for number in numbers:
            if number not in by_number:
                raise ValueError(f"members must be among {sorted(by_number)}, got {number}")
        if len(set(numbers)) < len(numbers) and not allow_duplicates:
            raise ValueError(
                "members must be different numbers unless duplicates are allowed, got "
                f"{list(numbers)}"
            )
        named = [by_number[number] for number in numbers]
        return named if allow_duplicates else _different(named)

    @property
    def unfinished(self) -> list[Path]:
        """Folders of the members whose training has begun but is not finished."""
        begun = sorted(path.parent for path in self.path.glob(f"member_*/{LAST}"))
        return [folder for folder in begun if not (folder / FINISHED).exists()]

    def tell_unfinished(self) -> None:
        """Warn where there are fewer finished members than the run was to have.

        An ensemble of fewer members is another one, whose calibration is worse.
        """
        wanted, have = self.config.get("members"), len(self.members)
        if wanted is not None and have < wanted:
            warnings.warn(
                DataWarning(self.path, f"only {have} of {wanted} members are finished and used"),
                stacklevel=3,
            )

    @property
    def files(self) -> list[Path]:
        """Files of the run and its members, which no other output may take the place of."""
        own = (WEIGHTS, LAST, LOG, CURVES, BEST, FINISHED)
        members = sorted(self.path.glob("member_*"))
        return [
            *(self.path / name for name in (CONFIG, SPLITS, DATASET)),
            *(member / name for member in members for name in own),
        ]

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return str(self.config["loss"])

    @property
    def head(self) -> str:
        """``"softmax"`` or ``"sigmoid"``: how the members' logits become probabilities."""
        return str(self.config["network"]["head"])

    @property
    def num_classes(self) -> int:
        """Classes, the background included."""
        return int(self.config["network"]["num_classes"])

    @property
    def dims(self) -> int:
        """Spatial axes the networks see: 2 for slices, 3 for volumes."""
        return int(self.config["network"]["dims"])

    @property
    def patch(self) -> tuple[int, ...] | None:
        """Extents of the training patches; None for whole slices or volumes."""
        extents = self.config.get("patch")
        return None if extents is None else tuple(int(extent) for extent in extents)

    @property
    def labels(self) -> dict[str, int]:
        """Values of the classes by name, the background 0 included."""
        return dict(self.config["dataset"]["labels"])

    @property
    def channel_names(self) -> list[str]:
        """Names of the channels of an image."""
        return list(self.config["dataset"]["channel_names"])

    @property
    def ignore_label(self) -> int | None:
        """Value of voxels that do not count; None if there is none."""
        value = self.config["dataset"]["ignore_label"]
        return None if value is None else int(value)

    @property
    def file_ending(self) -> str:
        """Ending of image files, such as ``.nii.gz``."""
        return str(self.config["dataset"]["file_ending"])

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images."""
        return Preprocessing.from_json(self.config["preprocessing"])

    @property
    def split(self) -> dict[str, list[str]]:
        """Case names of ``train``, ``val`` and ``test``.

        Raises:
            DataError: splits.json is missing or damaged, or a part of the split is missing.
        """
        file = self.path / SPLITS
        names: dict[str, list[str]] = read_json(file, dict[str, list[str]])
        if not {"train", "val"} <= set(names):
            raise DataError(file, "must hold lists of case names: train, val and optionally test")
        return names


def load_member(
    path: str | Path,
    device: torch.device | str = "cpu",
    *,
    trust: Collection[str] = (),
) -> SegmentationNetwork:
    """Load a trained member in evaluation mode, with the weights of its best validation score.

    Args:
        path: The folder of a member (one of `Run.members`), or a file of weights.
        device: Where the network goes.
        trust: Packages that a network may be imported from, beside the built-in ones.

    Raises:
        DataError: There is no checkpoint, or it cannot be read.
        UntrustedNetworkError: The network is not built in, nor of a trusted package.
        ImportError: The package of its class is not installed.

    Example:
        >>> network = load_member("runs/ce/member_00")  # doctest: +SKIP
        >>> network(slices).shape  # logits [B, C, Y, X] of slices [B, Ch, Y, X]  # doctest: +SKIP
        torch.Size([8, 4, 112, 112])
    """
    return member_weights(path).build(trust).to(device)


def member_weights(path: str | Path) -> Weights:
    """Read specification and weights of a member, from its folder or from a file of weights.

    Raises:
        DataError: There is no checkpoint, or it cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        file = weights_file(file)
    if file.suffix == ".safetensors":
        return read_weights(file)
    checkpoint = read_checkpoint(file, dict[str, Any])
    for name in ("network", "model"):
        if not isinstance(checkpoint.get(name), Mapping):
            raise DataError(file, f"is not the checkpoint of a member (no {name!r})")
    return Weights(file, dict(checkpoint["network"]), dict(checkpoint["model"]))


def _different(folders: list[Path]) -> list[Path]:
    """Return folders of members, of which none is a copy of another.

    Raises:
        DataError: One is.
    """
    seen: dict[tuple[int, str], Path] = {}
    for folder in folders:
        file = weights_file(folder)
        try:
            found = digest(file)
        except DataError:
            continue  # told when it is read
        first = seen.setdefault((found.size, found.sha256), file)
        if first != file:
            raise DataError(
                file,
                f"must be another member than {first}, got the same weights; duplicates must be "
                "allowed (--allow-duplicates)",
            )
    return folders


def weights_file(folder: Path) -> Path:
    """Return the file of a member's best weights."""
    old = folder / BEST
    return old if old.exists() and not (folder / WEIGHTS).exists() else folder / WEIGHTS


def epoch_weights(folder: Path, epoch: int) -> Path:
    """Return the file of a member's weights after an epoch, which ``loop.keep_epochs`` keeps."""
    return folder / f"epoch_{epoch:04d}.safetensors"
