"""Folds and fixed splits: nnU-Net's files, and the folds nnU-Net would make."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from blobs import write_blobs
from sklearn.model_selection import KFold

from fastcal.core.errors import DataError
from fastcal.data.dataset import Case, Dataset
from fastcal.data.description import Description
from fastcal.train.splits import five_folds, resolve_split

NAMES = [f"case_{number:02d}" for number in range(13)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    description = Description("Splits", ("MRI",), {"background": 0}, None, None, None, ".nii", None)
    cases = [Case(name, (tmp_path / name,), tmp_path / name) for name in NAMES]
    return Dataset(tmp_path, description, cases)


def test_automatic_folds_are_those_of_nnunet(dataset: Dataset) -> None:
    folds = five_folds(NAMES[::-1])
    expected = KFold(n_splits=5, shuffle=True, random_state=12345).split(NAMES)
    for fold, (train, val) in zip(folds, expected, strict=True):
        assert fold == {"train": [NAMES[i] for i in train], "val": [NAMES[i] for i in val]}
    assert sorted(name for fold in folds for name in fold["val"]) == NAMES
    assert resolve_split(dataset, fold=3).names() == {**folds[3], "test": []}


def test_splits_final_beside_the_dataset_gives_the_folds(dataset: Dataset, tmp_path: Path) -> None:
    folds = [{"train": NAMES[:4], "val": NAMES[4:6]}, {"train": NAMES[6:8], "val": NAMES[:1]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    assert resolve_split(dataset, fold=1).names() == {**folds[1], "test": []}
    assert resolve_split(dataset, folds, fold=0).names() == {**folds[0], "test": []}
    assert len(resolve_split(dataset).val) == 2, "without a fold, every fifth case validates"
    (tmp_path / "splits.json").write_text(json.dumps(folds[::-1]))
    assert resolve_split(dataset, tmp_path / "splits.json", fold=1).names()["val"] == NAMES[4:6]


@pytest.mark.parametrize(
    ("content", "fold", "message"),
    [
        (
            [{"train": NAMES[:2], "val": NAMES[2:]}],
            None,
            r"one of the 1 folds of .*folds\.json, got None",
        ),
        (
            [{"train": NAMES[:2], "val": NAMES[2:]}],
            1,
            r"fold must be 0 in .*folds\.json, got 1",
        ),
        ({"train": NAMES[:2], "val": NAMES[2:]}, 0, "is not a list of folds, got 0"),
        (
            [{"train": NAMES[:2], "val": ["stranger"]}],
            0,
            "must name cases .* got stranger",
        ),
        ([{"training": NAMES[:2]}], 0, "must hold lists of case names"),
        (["case_00"], 0, "is not a list of folds, got 0"),
        (
            [{"train": [1], "val": NAMES[:1]}],
            0,
            r"json: train.0 must be a valid string, got 1",
        ),
        ([{"train": None, "val": NAMES[:1]}], 0, r"folds\.json: train must be a valid list"),
        (
            [{"train": [NAMES[:1]], "val": NAMES[:1]}],
            0,
            "train.0 must be a valid string",
        ),
        ({"train": "case_00", "val": NAMES[:1]}, None, r"folds\.json: train must be a valid list"),
        ([{"train": [], "val": []}], 0, r"folds\.json must hold at least one case to train on"),
    ],
)
def test_a_bad_fold_or_file_is_named(
    dataset: Dataset, tmp_path: Path, content: object, fold: int | None, message: str
) -> None:
    (tmp_path / "folds.json").write_text(json.dumps(content))
    with pytest.raises((ValueError, DataError), match=message):
        resolve_split(dataset, tmp_path / "folds.json", fold=fold)


def test_counts_and_too_few_cases_make_no_folds(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="fold must be None for a split given by counts, got 0"):
        resolve_split(dataset, (10, 3, 0), fold=0)
    message = "fold must be from 0 to 4 in nnU-Net's own split of the dataset, got 7"
    with pytest.raises(ValueError, match=message):
        resolve_split(dataset, fold=7)
    with pytest.raises(ValueError, match=r"names must hold at least 5 cases .* got 4"):
        five_folds(NAMES[:4])
    few = replace(dataset, cases=dataset.cases[:4])
    with pytest.raises(ValueError, match="fold must be None where there is no"):
        resolve_split(few, fold=0)


def test_split_file_beside_the_dataset_is_honoured(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "data", n_cases=3)
    parts = {"train": ["blob_02"], "val": ["blob_00"], "test": ["blob_01"]}
    (folder / "splits.json").write_text(json.dumps(parts))
    assert resolve_split(Dataset.open(folder)).names() == parts
    (folder / "splits.json").write_text('["blob_00"]')
    with pytest.raises(DataError, match=r"splits\.json: must hold lists of case names"):
        resolve_split(Dataset.open(folder))
