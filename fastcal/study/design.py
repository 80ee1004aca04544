"""What each study is: its cases, its training, the sizes of its ensembles, and its shifts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcal.train import TrainConfig

LOSSES = ("ce", "dice")
SIZES = (1, 2, 5, 10, 25, 50)
"""Members of the ensembles that the paper compares."""
SHIFTS = ("contrast", "motion", "noise", "resolution")
BOX = "box:8:2"
"""The paper's region: the box of the reference, 8 mm wider in-plane and 2 slices across."""
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Epochs at whose ends calibration is looked at, as far as training goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantoms:
    """Phantoms that a study draws for itself; see `fastcal.data.phantom.write_dataset`."""

    kind: str
    shape: tuple[int, int, int]
    ood_cases: int
    """Cases with another contrast, motion and a local coil, for the detection of outliers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A study: everything that its results depend on besides the data, the seed and the machine.

    Example:
        >>> design("prostate").split
        (16, 4, 20)
        >>> design("prostate", fast=True).sizes(10)
        (1, 2, 5, 10)
    """

    name: str
    title: str
    split: tuple[int, int, int]
    """Cases to train, to validate and to test, where the dataset has no split of its own."""
    cases: Mapping[str, str] = field(default_factory=dict)
    """What all cases must have in the ``cases.csv`` that ``fastcal convert`` writes, by column."""
    training_cases: Mapping[str, str] = field(default_factory=dict)
    """What cases to train and to validate must have there, too."""
    test_cases: Mapping[str, str] = field(default_factory=dict)
    """What cases to test must have there, too."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `fastcal.train.TrainConfig` by dotted name that differ from its defaults, which
    are the paper's."""
    members: int = 50
    """Members of the pool of each loss, of which ensembles are drawn."""
    draws: int = 10
    """Random subsets of each size; all of them where there are fewer."""
    dropout: float = 0.5
    """Rate of the network of Monte Carlo dropout."""
    passes: int = 50
    """Passes with dropout."""
    length_members: int = 5
    """Members trained without early stopping, for calibration against the length of training."""
    length_epochs: int = 1000
    """Epochs that those members are trained for."""
    phantoms: Phantoms | None = None
    outside: str = ""
    """What the dataset is that lies outside the distribution of the training data."""
    channels: tuple[str, ...] = ()
    """Channels that are used where the dataset has all of these; otherwise all that it has."""
    n_bins: int = 10

    def sizes(self, members: int) -> tuple[int, ...]:
        """Return the sizes of ensembles that a pool allows, the pool itself among them."""
        return (*(size for size in SIZES if size < members), members)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Epochs at whose ends calibration is looked at."""
        return (*(length for length in LENGTHS if length < self.length_epochs), self.length_epochs)

    def config(self, loss: str, part: str = "pool") -> TrainConfig:
        """Return the settings of a training.

        Args:
            loss: ``"ce"`` or ``"dice"``.
            part: ``"pool"``, ``"dropout"`` or ``"length"``.
        """
        from fastcal.train import TrainConfig

        changes: dict[str, Any] = {**self.training, "loss.name": loss}
        if part == "dropout":
            changes["network.dropout"] = self.dropout
        if part == "length":
            changes["loop.max_epochs"] = self.length_epochs
            changes["loop.early_stopping"] = None
            changes["loop.keep_epochs"] = list(self.lengths)
        return TrainConfig().with_values(changes)


_SMALL: dict[str, Any] = {
    "network.widths": [8, 16, 32],
    "sampling.batch_size": 4,
    "loop.iterations_per_epoch": 20,
    "loop.max_epochs": 8,
    "schedule.patience": 4,
    "loop.tensorboard": False,
    "loop.channels_last": False,
}
"""Training of the fast versions: 160 steps of 4 slices, in a U-Net of three levels. A member takes
about five seconds of one core on slices of 40 x 40."""

_FAST: dict[str, Any] = {
    "members": 10,
    "draws": 5,
    "passes": 10,
    "length_members": 2,
    "length_epochs": 60,
}

_DESIGNS = {
    one.name: one
    for one in (
        Design(
            name="brain",
            title="Glioma, BraTS 2017",
            split=(66, 22, 102),
            cases={"grade": "HGG"},
            training_cases={"institution": "CBICA"},
            test_cases={"institution": "TCIA"},
            training={"preprocessing.spacing": [1.0, 1.0], "preprocessing.size": [224, 224]},
            channels=("T1CE", "T2", "FLAIR"),
        ),
        Design(
            name="heart",
            title="Heart in short axis, ACDC 2017",
            split=(40, 10, 50),
            cases={"phase": "ED"},
            training={"preprocessing.spacing": [2.0, 2.0], "preprocessing.size": [224, 224]},
        ),
        Design(
            name="prostate",
            title="Prostate, PROSTATEx",
            split=(16, 4, 20),
            training={
                "preprocessing.spacing": [0.5, 0.5],
                "preprocessing.size": [224, 224],
                "sampling.batch_size": 16,
            },
            outside="PROMISE12",
        ),
        Design(
            name="phantom",
            title="Phantom hearts",
            split=(40, 10, 50),
            phantoms=Phantoms(kind="heart", shape=(64, 64, 16), ood_cases=50),
            outside="phantoms of another scanner",
        ),
        Design(name="hippocampus", title="Hippocampus, MSD Task04", split=(128, 32, 42)),
    )
}
STUDIES = tuple(_DESIGNS)

_SMALLER: dict[str, dict[str, Any]] = {
    # More slices of more subjects than phantoms have: twenty epochs instead of eight.
    "hippocampus": {"loop.max_epochs": 20},
    # Twice the pixel and half the extent: the same field of view as the paper's.
    "brain": {"preprocessing.spacing": [2.0, 2.0], "preprocessing.size": [112, 112]},
    "heart": {"preprocessing.spacing": [4.0, 4.0], "preprocessing.size": [112, 112]},
    "prostate": {"preprocessing.spacing": [1.0, 1.0], "preprocessing.size": [112, 112]},
}


def design(name: str, *, fast: bool = False) -> Design:
    """Return the design of a study.

    Args:
        name: ``"brain"``, ``"heart"``, ``"prostate"``, ``"phantom"`` or ``"hippocampus"``.
        fast: The small version, for a CPU: see `docs/study.md`.

    Raises:
        ValueError: There is no such study.
    """
    if name not in _DESIGNS:
        raise ValueError(f"study must be one of {', '.join(STUDIES)}, got {name!r}")
    found = _DESIGNS[name]
    if not fast:
        return found
    small = replace(found, training={**_SMALL, **_SMALLER.get(name, {})}, **_FAST)
    if found.phantoms is None:
        return replace(small, split=(40, 3, 24)) if name == "hippocampus" else small
    phantoms = replace(found.phantoms, shape=(40, 40, 10), ood_cases=24)
    return replace(small, split=(24, 4, 24), phantoms=phantoms)
