"""What a study trains: a pool of members for each loss, networks with dropout, long trainings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.study.design import LOSSES

if TYPE_CHECKING:
    from fastcal.study.design import Design
    from fastcal.study.study import Study
    from fastcal.train import TrainConfig

PARTS = ("pool", "dropout", "length")


@dataclass(frozen=True, slots=True)
class Training:
    """One run of a study."""

    loss: str
    part: str
    """``"pool"``, ``"dropout"`` (one network) or ``"length"`` (without early stopping)."""
    members: int

    @property
    def name(self) -> str:
        """Name of its folder in ``runs/``, such as ``dice`` or ``dice-dropout``."""
        return self.loss if self.part == "pool" else f"{self.loss}-{self.part}"


def trainings(design: Design, members: int) -> Iterator[Training]:
    """Yield what is trained, the pools first, because most results come from them."""
    counts = {"pool": members, "dropout": 1, "length": design.length_members}
    for part in PARTS:
        for loss in LOSSES:
            yield Training(loss, part, counts[part])


def named_package(config: TrainConfig) -> list[str]:
    """Return where the network comes from that the caller chose, and trusts thereby."""
    module, colon, _ = str(config.network.get("name", "UNet")).partition(":")
    return [module] if colon else []


def train(study: Study, training: Training) -> Path:
    """Train a run of a study, or what is missing of it, and return its folder."""
    from fastcal.train import train_ensemble

    run = study.run(training.name)
    train_ensemble(
        study.dataset,
        run,
        members=training.members,
        seed=study.seed,
        config=study.design.config(training.loss, training.part),
        split=study.split,
        device=study.device,
        strategy="processes" if study.jobs > 1 else "sequential",
        jobs=study.jobs,
        # One cache for all runs: they see the same cases.
        prepared=study.folder / "prepared",
        progress=study.progress,
    )
    return run
