"""Splits of a dataset into cases to train on, to validate on and to test on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcal.core.doors import read_json, validated
from fastcal.core.errors import DataError
from fastcal.models.run import SPLITS

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
    """The labelled cases of each part."""

    train: list[Case]
    val: list[Case]
    test: list[Case]

    def names(self) -> dict[str, list[str]]:
        """Return the names of the cases of each part."""
        return {part: [case.name for case in getattr(self, part)] for part in PARTS}


def resolve_split(
    dataset: Dataset, source: SplitSource | None = None, *, fold: int | None = None
) -> Split:
    """Resolve the split of a dataset.

    Args:
        dataset: The dataset to split.
        source: Counts ``(train, val, test)``, taken in the order of the sorted names; names by
            part; a list of such names, one entry per fold, as in nnU-Net's splits_final.json; or a
            JSON file of either. If both this and ``fold`` are None, splits.json in the folder of
            the dataset is used if there is one. Otherwise the last fifth of the cases by sorted
            name validates and the others train.
        fold: The fold to take from a list, counted from 0. Without a source, the list is
            splits_final.json in the folder of the dataset, or splits.json if that holds a list.
            Otherwise it is the five folds that nnU-Net makes from the same cases.

    Raises:
        DataError: A file cannot be read or does not hold a split.
        ValueError: Names are unknown or repeated, cases have no labels, there is nothing to train
            on or to validate on, the fold does not exist, or no fold of a list was chosen.

    Example:
        >>> split = resolve_split(dataset, fold=0)  # doctest: +SKIP
        >>> len(split.train), len(split.val)  # doctest: +SKIP
        (161, 41)
    """
    where = "split"
    if source is None:
        source = _beside(dataset, fold)
        where = "nnU-Net's own split of the dataset"
    if isinstance(source, str | Path):
        where, source = str(source), read_json(Path(source))
    split = _of_source(dataset, source, fold, where)
    unlabelled = [case.name for case in (*split.train, *split.val) if case.label is None]
    if unlabelled:
        raise ValueError(f"{where} must hold labelled cases, got {', '.join(unlabelled)}")
    if not split.train or not split.val:
        raise ValueError(
            f"{where} must hold at least one case to train on and one to validate on, "
            f"got {len(split.train)} and {len(split.val)}"
        )
    return split


def five_folds(names: Sequence[str]) -> list[dict[str, list[str]]]:
    """Make nnU-Net's five folds.

    They are those of scikit-learn's ``KFold(5, shuffle=True, random_state=12345)`` for the sorted
    names.

    Raises:
        ValueError: There are fewer names than folds.

    Example:
        >>> five_folds(["a", "b", "c", "d", "e"])[0]
        {'train': ['b', 'c', 'd', 'e'], 'val': ['a']}
    """
    if len(names) < FOLDS:
        raise ValueError(
            f"names must hold at least {FOLDS} cases for as many folds, got {len(names)}"
        )
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
    """Return the split that the dataset folder holds, or else the default one."""
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
    if len(dataset.cases) < FOLDS:
        raise ValueError(
            f"fold must be None where there is no {NNUNET_SPLITS} and there are fewer than {FOLDS} "
            f"cases to make folds of, got {fold}"
        )
    return five_folds([case.name for case in dataset.cases])


def _of_source(dataset: Dataset, content: Any, fold: int | None, where: str) -> Split:
    if isinstance(content, tuple) and all(isinstance(count, int) for count in content):
        if fold is not None:
            raise ValueError(f"fold must be None for a split given by counts, got {fold}")
        if len(content) != len(PARTS):
            raise ValueError(f"split must be three counts, train, val and test, got {content}")
        return Split(*dataset.split(*content))
    if isinstance(content, list | tuple) and all(isinstance(part, Mapping) for part in content):
        if fold is None:
            raise ValueError(f"fold must be one of the {len(content)} folds of {where}, got None")
        if not 0 <= fold < len(content):
            last = len(content) - 1
            allowed = f"from 0 to {last}" if last > 0 else "0"
            raise ValueError(f"fold must be {allowed} in {where}, got {fold}")
        content = content[fold]
    elif fold is not None:
        raise ValueError(f"fold must be None, because {where} is not a list of folds, got {fold}")
    return _by_name(dataset, content, where)


def _by_name(dataset: Dataset, source: Any, where: str) -> Split:
    if not isinstance(source, Mapping) or not {"train", "val"} <= set(source) <= set(PARTS):
        raise DataError(where, "must hold lists of case names: train, val and optionally test")
    names: dict[str, list[str]] = validated(where, dict(source), dict[str, list[str]])
    cases = {case.name: case for case in dataset.cases}
    chosen = [name for part in PARTS for name in names.get(part, [])]
    unknown = sorted(set(chosen) - set(cases))
    if unknown:
        raise ValueError(f"{where} must name cases of the dataset, got {', '.join(unknown)}")
    repeated = sorted({name for name in chosen if chosen.count(name) > 1})
    if repeated:
        raise ValueError(f"{where} must name each case once, got {', '.join(repeated)} repeatedly")
    return Split(*([cases[name] for name in names.get(part, [])] for part in PARTS))
