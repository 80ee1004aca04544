"""Which cases train, which choose the checkpoint, which are left for testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.errors import DataError
from fastcal.models.run import SPLITS, read_json

if TYPE_CHECKING:
    from fastcal.data.dataset import Case, Dataset

PARTS = ("train", "val", "test")
SplitSource = tuple[int, int, int] | Mapping[str, Sequence[str]] | str | Path


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled cases of each part, by name."""

    train: list[Case]
    val: list[Case]
    test: list[Case]

    def names(self) -> dict[str, list[str]]:
        return {part: [case.name for case in getattr(self, part)] for part in PARTS}


def resolve_split(dataset: Dataset, source: SplitSource | None = None) -> Split:
    """The split of a dataset.

    Args:
        source: counts ``(train, val, test)`` taken in order of the sorted names; names by part; or
            a JSON file of these names. None: the dataset folder's splits.json if there is one, else
            every fifth of the cases by sorted name, the last ones, validates and the others train.

    Raises:
        DataError: a file that cannot be read.
        ValueError: unknown or repeated names, unlabelled cases, or nothing to train or validate
            with.
    """
    beside = dataset.folder / SPLITS
    if source is None and beside.exists():
        source = beside
    if source is None:
        n_val = max(1, len(dataset.cases) // 5)
        source = (len(dataset.cases) - n_val, n_val, 0)
    if isinstance(source, tuple):
        split = Split(*dataset.split(*source))
    else:
        split = _by_name(dataset, source)
    unlabelled = [case.name for case in (*split.train, *split.val) if case.label is None]
    if unlabelled:
        raise ValueError(f"split: no labels for {', '.join(unlabelled)}")
    if not split.train or not split.val:
        raise ValueError(
            f"split: got {len(split.train)} cases to train and {len(split.val)} to validate, "
            "expected at least one of each"
        )
    return split


def _by_name(dataset: Dataset, source: Mapping[str, Sequence[str]] | str | Path) -> Split:
    where = "split"
    if not isinstance(source, Mapping):
        where, source = str(source), read_json(Path(source))
    if not isinstance(source, Mapping) or not {"train", "val"} <= set(source) <= set(PARTS):
        raise DataError(where, "expected lists of case names: train, val and, if wanted, test")
    cases = {case.name: case for case in dataset.cases}
    chosen = [name for part in PARTS for name in source.get(part, [])]
    unknown = sorted(set(chosen) - set(cases))
    if unknown:
        raise ValueError(f"{where}: not in the dataset: {', '.join(unknown)}")
    repeated = sorted({name for name in chosen if chosen.count(name) > 1})
    if repeated:
        raise ValueError(f"{where}: named more than once: {', '.join(repeated)}")
    return Split(*([cases[name] for name in source.get(part, [])] for part in PARTS))
