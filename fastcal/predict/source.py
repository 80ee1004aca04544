"""The source of predictions: the networks of a run, applied to the images of each case."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fastcal.cases.labels import LabelScheme
from fastcal.cases.settings import MemberReading
from fastcal.cases.source import Member, Origin
from fastcal.core.errors import DataError
from fastcal.core.problem import Space
from fastcal.data import images
from fastcal.data.dataset import Case, image_cases
from fastcal.data.images import DEFAULT
from fastcal.models.run import CONFIG, DATASET, Run
from fastcal.predict.members import RunMembers
from fastcal.predict.progress import PassProgress

if TYPE_CHECKING:
    from torch import Tensor

    from fastcal.data.nifti import Volume


class NetworkPredictions:
    """Members that are predicted; see `fastcal.cases.source.Source`.

    Args:
        run: The run of the networks.
        networks: Its members, loaded one at a time.
        images: The cases by name, in the order of the run.
        space: Average probabilities or logits.
        tell: Print how far a long case is.
    """

    def __init__(
        self,
        run: Run,
        networks: RunMembers,
        images: Mapping[str, Case],
        *,
        space: Space,
        tell: bool,
    ) -> None:
        self.cases = tuple(images)
        self.dataset_json = run.path / DATASET
        self.reading = MemberReading(
            LabelScheme.of_classes(run.num_classes, ignore_label=run.ignore_label),
            "sigmoid" if run.head == "sigmoid" else "softmax",
            networks.inference.gives_logits(run.preprocessing),
            space,
        )
        self._run_folder = run.path
        self._networks, self._images, self._tell = networks, images, tell

    @property
    def origin(self) -> Origin:
        """What the predictions depend on."""
        reading, weights = self.reading, self._networks.sources
        images = [path for case in self._images.values() for path in case.images]
        read = [self._run_folder, *(path.parent for path in (*weights, *images))]
        settings = {
            **self._networks.record,
            "activation": reading.activation,
            "space": reading.space,
        }
        return Origin(
            command="predict", settings=settings, folders=list(dict.fromkeys(read)), shared=weights
        )

    def moved(self, device: torch.device) -> NetworkPredictions:
        """Return the source on another device; every network that it loads stays there."""
        made = copy.copy(self)
        made._networks = self._networks.moved(device)
        return made

    def inputs(self, case: str) -> Sequence[Path]:
        """The files of the images of a case."""
        return [part for path in self._images[case].images for part in images.parts(path)]

    @property
    def advice(self) -> str:
        """What to do when memory runs out."""
        return self._networks.advice

    def read(self, case: str) -> Iterator[tuple[Tensor, Volume]]:
        """Read and preprocess the images of a case."""
        yield self._networks.read(self._images[case])

    def members(self, case: str, pieces: Iterator[tuple[Tensor, Volume]]) -> Iterator[Member]:
        """Predict a case with one network, pass and view after another."""
        images, like = next(pieces)
        on_pass = PassProgress(case) if self._tell else None
        yield from self._networks.of(case, images, like, on_pass=on_pass)


def choose_images(
    run: Run, images: str | Path | Sequence[Case], wanted: Sequence[str] | str | None
) -> dict[str, Case]:
    """Return the cases to predict, by name.

    Args:
        run: Its split names cases, its dataset the ending of files.
        images: Folder of images, or cases.
        wanted: Names of cases, or a part of the split; None for all.

    Raises:
        DataError: There are no images of a case, or the part of the split has no cases.
        ValueError: There is no such part of the split, or no case at all.
    """
    if isinstance(images, str | Path):
        try:
            found = {case.name: case for case in image_cases(images, run.file_ending)}
        except DataError as error:
            if run.file_ending == DEFAULT:
                raise
            told = f"{error.problem}; the ending is that of {run.path / CONFIG}"
            raise DataError(error.path, told) from error
    else:
        found = {case.name: case for case in images}
        if not found:
            raise ValueError("images must hold at least one case, got none")
    if wanted is None:
        return found
    if isinstance(wanted, str):
        splits = run.split
        if wanted not in splits:
            raise ValueError(f"cases must be names or one of {sorted(splits)}, got {wanted!r}")
        split, wanted = wanted, splits[wanted]
        if not wanted:
            raise DataError(run.path, f"the split of this run has no {split} cases")
    place = Path(images) if isinstance(images, str | Path) else Path("images")
    for name in wanted:
        if name not in found:
            raise DataError(place, f"no images of case {name}")
    return {name: found[name] for name in sorted(set(wanted))}
