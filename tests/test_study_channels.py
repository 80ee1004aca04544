"""The channels of a study: the paper's of the brain, or those that are asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fastcal.core.errors import DataError
from fastcal.data.dataset import Dataset
from fastcal.study.channels import wanted_channels, with_channels, write_listing
from fastcal.study.design import design

FOUR = ("T1", "T1CE", "T2", "FLAIR")


def dataset_of(folder: Path, channels: tuple[str, ...]) -> Dataset:
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    content = {
        "channel_names": dict(zip(map(str, range(9)), channels, strict=False)),
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    for name in ("a", "b"):
        for channel in range(len(channels)):
            (folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz").touch()
        (folder / "labelsTr" / f"{name}.nii.gz").touch()
    return Dataset.open(folder)


def test_the_brain_has_the_papers_channels_where_they_are_there(tmp_path: Path) -> None:
    usual = design("brain").channels
    assert wanted_channels(dataset_of(tmp_path / "four", FOUR), None, usual) == FOUR[1:]
    other = dataset_of(tmp_path / "other", ("T1", "FLAIR"))
    assert wanted_channels(other, None, usual) == ("T1", "FLAIR")
    assert wanted_channels(other, ["FLAIR"], usual) == ("FLAIR",)
    for given in (["T2"], ["T1", "T1"], [""], []):
        with pytest.raises(ValueError, match=r"channels must be some of T1, FLAIR.*, got"):
            wanted_channels(other, given, usual)


def test_the_listing_opens_as_a_dataset_of_the_files_where_they_are(tmp_path: Path) -> None:
    given = dataset_of(tmp_path / "four", FOUR)
    assert with_channels(given, FOUR, tmp_path / "out") is given
    chosen = with_channels(given, FOUR[1:], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_listing(chosen)
    opened = Dataset.open(tmp_path / "out")
    assert opened.channel_names == list(FOUR[1:])
    assert opened.labels == given.labels
    assert [case.images for case in opened.cases] == [case.images for case in chosen.cases]
    assert [path.name for path in opened.cases[1].images] == [
        f"b_{channel:04d}.nii.gz" for channel in (1, 2, 3)
    ]
    assert opened.cases[0].label == given.cases[0].label


def test_channels_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    given = dataset_of(tmp_path / "stacked", FOUR)
    cases = [replace(case, images=case.images[:1]) for case in given.cases]
    stacked = replace(given, cases=cases)
    with pytest.raises(DataError, match=r"a_0000\.nii\.gz: must be one file per channel"):
        with_channels(stacked, FOUR[1:], tmp_path / "out")
    other = dataset_of(tmp_path / "other", ("T1", "FLAIR"))
    with pytest.raises(DataError, match="other: has no channel T1CE, T2"):
        with_channels(other, FOUR[1:], tmp_path / "out")
