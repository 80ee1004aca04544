"""One study that is being run: its data, its settings, and where everything lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.data.affines import affine_rule
from fastcal.study.claim import identity
from fastcal.study.sets import EvaluationSet, evaluation_sets
from fastcal.study.subsets import Subset, draw_subsets

if TYPE_CHECKING:
    from fastcal.data.dataset import Dataset
    from fastcal.study.design import Design

SETTINGS = "study.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study and its folder.

    The folder holds::

    study.json stages.json     settings; times of the stages
    channels/dataset.json      the files that are used, where not all channels are
    phantoms/ prepared/        data that were drawn; cases that were preprocessed
    runs/RUN/                  members, by fastcal.train
    streamed/RUN/SET/CASE.npz  what is kept of each case
    tables/*.csv figures/*.png results.json results.md
    """

    design: Design
    folder: Path
    sources: tuple[Dataset, Dataset | None]
    """The next two as they were given, with all channels."""
    dataset: Dataset
    outside: Dataset | None
    split: dict[str, list[str]]
    """Names of the cases of ``train``, ``val`` and ``test``."""
    members: int
    seed: int
    shifts: tuple[str, ...]
    device: str | None
    jobs: int
    progress: bool

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / name

    def streamed(self, run: str, name: str) -> Path:
        """Return the folder of the records of a run on a set of cases."""
        return self.folder / "streamed" / run / name

    @property
    def sets(self) -> tuple[EvaluationSet, ...]:
        """Held-out cases, cases from outside, and every shift."""
        held_out = set(self.split["test"])
        test = [case for case in self.dataset.cases if case.name in held_out]
        return evaluation_sets(test, self.outside, self.shifts)

    @property
    def subsets(self) -> tuple[Subset, ...]:
        """The ensembles that are drawn from each pool."""
        design = self.design
        sizes = design.sizes(self.members)
        return draw_subsets(self.members, sizes, draws=design.draws, seed=self.seed)

    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, as JSON gives it back."""
        design, (source, beyond) = self.design, self.sources
        settings = {
            "study": design.name,
            "dataset": identity(source),
            "outside": None if beyond is None else identity(beyond),
            "channels": self.dataset.channel_names,
            "split": self.split,
            "members": self.members,
            "seed": self.seed,
            "shifts": list(self.shifts),
            "draws": design.draws,
            "passes": design.passes,
            "length": {"members": design.length_members, "epochs": design.length_epochs},
            "bins": design.n_bins,
            "affine": affine_rule(),
            "config": {
                part: design.config("ce", part).to_json() for part in ("pool", "dropout", "length")
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain
