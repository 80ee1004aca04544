"""Which cases train, which choose the checkpoint, which are left for testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcal.core.errors import DataError
from fastcal.models.run import SPLITS, read_json

if TYPE_CHECKING:
    from fastcal.data.dataset import Case, Dataset

PARTS = ("train", "val", "test")
NNUNET_SPLITS = "splits_final.json"
Names = Mapping[str, Sequence[str]]
SplitSource = tuple[int, int, int] | Names | Sequence[Names] | str | Path

# nnU-Net's generate_crossval_split.
FOLDS, FOLD_SEED = 5, 12345


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled cases of each part, by name."""

    train: list[Case]
    val: list[Case]
    test: list[Case]

    def names(self) -> dict[str, list[str]]:
        return {part: [case.name for case in getattr(self, part)] for part in PARTS}


def resolve_split(
    dataset: Dataset, source: SplitSource | None = None, *, fold: int | None = None
) -> Split:
    """The split of a dataset.

    Args:
        source: counts ``(train, val, test)`` taken in order of the sorted names; names by part; a
            list of them, one a fold, as in nnU-Net's splits_final.json; or a JSON file of either.
            None without `fold`: the dataset folder's splits.json if there is one, else every fifth
            of the cases by sorted name, the last ones, validates and the others train.
        fold: which fold of a list, from 0. Without a source: of the dataset folder's
            splits_final.json or splits.json if that is a list, else of nnU-Net's own five, which
            are those that nnU-Net makes of the same cases.

    Raises:
        DataError: a file that cannot be read.
        ValueError: unknown or repeated names, unlabelled cases, nothing to train or validate
            with, a fold that is not there, or a list of folds without a choice.

    Example:
        >>> split = resolve_split(dataset, fold=0)  # doctest: +SKIP
        >>> len(split.train), len(split.val)  # doctest: +SKIP
        (161, 41)
    """
    where = "split"
    if source is None:
        source = _beside(dataset, fold)
        where = "nnU-Net's own split of the dataset"  # unless it is a file, which has a name
    split = _of_source(dataset, source, fold, where)
    unlabelled = [case.name for case in (*split.train, *split.val) if case.label is None]
    if unlabelled:
        raise ValueError(f"split: no labels for {', '.join(unlabelled)}")
    if not split.train or not split.val:
        raise ValueError(
            f"split: got {len(split.train)} cases to train and {len(split.val)} to validate, "
            "expected at least one of each"
        )
    return split


def five_folds(names: Sequence[str]) -> list[dict[str, list[str]]]:
    """nnU-Net's folds: scikit-learn's ``KFold(5, shuffle=True, random_state=12345)`` of the sorted
    names.

    Raises:
        ValueError: fewer names than folds.

    Example:
        >>> five_folds(["a", "b", "c", "d", "e"])[0]
        {'train': ['b', 'c', 'd', 'e'], 'val': ['a']}
    """
    if len(names) < FOLDS:
        raise ValueError(f"fold: {len(names)} cases do not make {FOLDS} folds")
    names = sorted(names)
    order = np.arange(len(names))
    np.random.RandomState(FOLD_SEED).shuffle(order)
    folds = []
    for held_out in np.array_split(order, FOLDS):
        chosen = set(held_out.tolist())
        train = [name for place, name in enumerate(names) if place not in chosen]
        folds.append({"train": train, "val": [names[place] for place in sorted(chosen)]})
    return folds


def _beside(dataset: Dataset, fold: int | None) -> SplitSource:
    """What the dataset folder itself says, or what is done where it says nothing."""
    ours = dataset.folder / SPLITS
    if fold is None:
        if ours.exists():
            return ours
        n_val = max(1, len(dataset.cases) // 5)
        return len(dataset.cases) - n_val, n_val, 0
    if (dataset.folder / NNUNET_SPLITS).exists():
        return dataset.folder / NNUNET_SPLITS
    if ours.exists() and isinstance(read_json(ours), list):
        return ours
    return five_folds([case.name for case in dataset.cases])


def _of_source(dataset: Dataset, source: SplitSource, fold: int | None, where: str) -> Split:
    content: Any = source
    if isinstance(source, str | Path):
        where, content = str(source), read_json(Path(source))
    elif isinstance(source, tuple) and all(isinstance(count, int) for count in source):
        if fold is not None:
            raise ValueError(f"fold: got {fold}, but the split is given by counts")
        train, val, test = source
        return Split(*dataset.split(train, val, test))
    if isinstance(content, list | tuple) and all(isinstance(part, Mapping) for part in content):
        if fold is None:
            raise ValueError(f"{where}: a list of {len(content)} folds, choose one by fold")
        if not 0 <= fold < len(content):
            raise ValueError(f"fold: got {fold}, expected {_range(content)} of {where}")
        content = content[fold]
    elif fold is not None:
        raise ValueError(f"fold: got {fold}, but {where} is no list of folds")
    return _by_name(dataset, content, where)


def _range(folds: Sequence[Names]) -> str:
    return "the one fold, 0," if len(folds) == 1 else f"one of the folds 0 to {len(folds) - 1}"


def _by_name(dataset: Dataset, source: Any, where: str) -> Split:
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
