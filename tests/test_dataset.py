"""Datasets in nnU-Net's raw layout: versions 1 and 2, and all that can be wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastcal.core.errors import DataError
from fastcal.data import Case, Dataset, description, image_cases

VERSION_2: dict[str, Any] = {
    "name": "Two",
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "edema": 1, "core": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def _save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, np.diag([1, 1, 3, 1]) if affine is None else affine).to_filename(path)


def _write(folder: Path, content: dict[str, Any], names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    for name in names:
        for channel in range(len(content.get("channel_names", content.get("modality")))):
            image = rng.integers(0, 100, (6, 5, 4)).astype(np.int16) + 100 * channel
            _save(folder / f"imagesTr/{name}_{channel:04d}.nii.gz", image)
        label = rng.integers(0, 3, (6, 5, 4)).astype(np.uint8)
        _save(folder / f"labelsTr/{name}.nii.gz", label)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path / "Dataset002_Two", VERSION_2)


def test_version_2_is_listed_and_loaded(folder: Path) -> None:
    dataset = Dataset.open(folder)
    assert dataset.name == "Two"
    assert dataset.channel_names == ["T1", "T2"]
    assert dataset.labels == {"background": 0, "edema": 1, "core": 2}
    assert (dataset.num_classes, dataset.ignore_label, dataset.label_groups) == (3, None, None)
    assert [case.name for case in dataset.cases] == ["a", "b", "c"]
    assert dataset.problems() == []
    dataset.validate()
    image, label, like = dataset.cases[1].load()
    assert image.shape == (2, 6, 5, 4)
    assert image.dtype == np.float32
    stored = nib.load(folder / "imagesTr/b_0001.nii.gz").get_fdata()
    np.testing.assert_array_equal(image[1], stored)
    assert label is not None
    assert label.dtype == np.uint8
    assert like.spacing == (1.0, 1.0, 3.0)


def test_version_1_names_labels_by_value_and_lists_its_cases(tmp_path: Path) -> None:
    content = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "2": "posterior", "1": "anterior"},
        "training": [
            {"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"},
            {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"},
        ],
    }
    dataset = Dataset.open(_write(tmp_path / "Task004", content))
    assert dataset.name == "Task004"
    assert list(dataset.labels.items()) == [("background", 0), ("anterior", 1), ("posterior", 2)]
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert dataset.problems() == []


def test_decathlon_folders_have_one_file_a_case_with_the_channels_last(tmp_path: Path) -> None:
    content = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "tumour"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    folder = tmp_path / "Task01"
    stack = np.random.default_rng(0).random((6, 5, 4, 2), dtype=np.float32)
    _save(folder / "imagesTr/a.nii.gz", stack)
    _save(folder / "labelsTr/a.nii.gz", np.ones((6, 5, 4), np.uint8))
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.open(folder)
    assert dataset.problems() == []
    image, _, like = dataset.cases[0].load()
    np.testing.assert_array_equal(image, np.moveaxis(stack, -1, 0))
    assert like.shape == (6, 5, 4)


def test_label_groups_and_the_ignore_label_are_understood(tmp_path: Path) -> None:
    content = VERSION_2 | {
        "labels": {
            "background": 0,
            "whole": [1, 2, 3],
            "core": [2, 3],
            "enhancing": 3,
            "ignore": 4,
        },
        "regions_class_order": [1, 2, 3],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    read = description.read(tmp_path / "dataset.json")
    assert read.label_groups == ((1, 2, 3), (2, 3), (3,))
    assert read.regions_class_order == (1, 2, 3)
    assert read.num_classes == 3
    assert read.ignore_label == 4
    assert read.label_values == (0, 1, 2, 3, 4)
    assert read.labels == {"background": 0, "whole": 1, "core": 2, "enhancing": 3}


def test_a_description_survives_json(tmp_path: Path) -> None:
    content = VERSION_2 | {"labels": {"background": 0, "all": [1, 2], "core": 2, "ignore": 3}}
    content["regions_class_order"] = [1, 2]
    for number, original in enumerate((VERSION_2, content)):
        path = tmp_path / str(number) / "dataset.json"
        path.parent.mkdir()
        path.write_text(json.dumps(original))
        read = description.read(path)
        path.write_text(json.dumps(description.to_json(read, num_training=3)))
        assert description.read(path) == read


def test_the_ignore_label_may_appear_in_label_maps(tmp_path: Path) -> None:
    content = VERSION_2 | {"labels": {"background": 0, "edema": 1, "ignore": 2}}
    dataset = Dataset.open(_write(tmp_path / "d", content))
    assert dataset.ignore_label == 2
    assert dataset.num_classes == 2
    assert dataset.problems() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, "must have 'labels'"),
        ({"labels": {"edema": 1}}, "must include a background"),
        ({"labels": {"background": 0, "edema": 2}}, r"must be 0 to 1, got \[0, 2\]"),
        ({"labels": {"background": 0, "all": [1, 2]}}, "regions_class_order"),
        ({"labels": {"background": 0, "x": "one"}}, "one"),
        ({"channel_names": {}}, "channel_names"),
        ({"channel_names": {"1": "T1"}}, "must be numbered 0 to 0"),
    ],
)
def test_a_description_without_sense_names_its_file(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(VERSION_2 | change))
    with pytest.raises(DataError, match=words) as caught:
        description.read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_description_that_is_no_json_object_names_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        Dataset.open(tmp_path)


def test_empty_and_absent_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"dataset\.json: no such file"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(VERSION_2))
    with pytest.raises(DataError, match="imagesTr: has no images"):
        Dataset.open(tmp_path)
    with pytest.raises(DataError, match="has no images named"):
        image_cases(tmp_path)


def test_validate_lists_every_problem_at_once(folder: Path) -> None:
    (folder / "imagesTr/a_0001.nii.gz").unlink()
    (folder / "labelsTr/b.nii.gz").unlink()
    _save(folder / "imagesTr/b_0001.nii.gz", np.zeros((6, 5, 3), np.int16))
    _save(folder / "imagesTr/c_0001.nii.gz", np.zeros((6, 5, 4), np.int16), np.diag([1, 1, 4, 1]))
    label = np.zeros((6, 5, 4), np.uint8)
    label[0, 0, 0] = 7
    _save(folder / "labelsTr/c.nii.gz", label)
    _save(folder / "labelsTr/stray.nii.gz", label)
    _save(folder / "imagesTr/c_0002.nii.gz", np.zeros((6, 5, 4), np.int16))
    _save(folder / "imagesTr/d_0000.nii.gz", np.full((6, 5, 4), np.nan, np.float32))
    _save(folder / "imagesTr/d_0001.nii.gz", np.zeros((6, 5, 4), np.float32))
    whole = (folder / "imagesTr/d_0001.nii.gz").read_bytes()
    (folder / "imagesTr/d_0001.nii.gz").write_bytes(whole[:-30])
    _save(folder / "labelsTr/d.nii.gz", np.full((6, 5, 4), 0.5, np.float32))

    problems = Dataset.open(folder).problems()
    expected = [
        ("imagesTr/c_0002.nii.gz", "beyond the 2"),
        ("labelsTr/stray.nii.gz", "without an image"),
        ("imagesTr/a_0001.nii.gz", "no such file"),
        ("imagesTr/b_0001.nii.gz", "got (6, 5, 3)"),
        ("labelsTr/b.nii.gz", "no such file"),
        ("imagesTr/c_0001.nii.gz", "must have the affine"),
        ("labelsTr/c.nii.gz", "got [7]"),
        ("imagesTr/d_0000.nii.gz", "NaN"),
        ("imagesTr/d_0001.nii.gz", "damaged"),
        ("labelsTr/d.nii.gz", "labels must be integers"),
    ]
    assert len(problems) == len(expected)
    for problem, (file, words) in zip(problems, expected, strict=True):
        assert str(problem).startswith(f"{folder / file}: ")
        assert words in str(problem)
    with pytest.raises(DataError, match="10 problems") as caught:
        Dataset.open(folder).validate()
    assert all(file in str(caught.value) for file, _ in expected)
    assert "\n" not in str(caught.value)


def test_one_problem_is_reported_as_itself(folder: Path) -> None:
    (folder / "labelsTr/b.nii.gz").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(DataError) as caught:
        Dataset.open(folder).validate()
    assert str(caught.value).startswith(f"{folder / 'labelsTr/b.nii.gz'}: ")


def test_loading_a_case_checks_its_files_against_each_other(folder: Path) -> None:
    case = Dataset.open(folder).cases[0]
    _save(folder / "labelsTr/a.nii.gz", np.zeros((6, 5, 4), np.uint8), np.diag([-1, 1, 3, 1]))
    with pytest.raises(DataError, match=r"labelsTr/a\.nii\.gz: must have the affine of"):
        case.load()
    _save(folder / "labelsTr/a.nii.gz", np.zeros((6, 5, 5), np.uint8))
    with pytest.raises(DataError, match=r"labelsTr/a\.nii\.gz: must have the shape of"):
        case.load()


def test_float_labels_that_hold_integers_are_integers(folder: Path) -> None:
    _save(folder / "labelsTr/a.nii.gz", np.full((6, 5, 4), 2.0, np.float32))
    _, label, _ = Dataset.open(folder).cases[0].load()
    assert label is not None
    assert label.dtype == np.int32
    assert (label == 2).all()


def test_split_goes_by_sorted_name(folder: Path) -> None:
    dataset = Dataset.open(folder)
    parts = dataset.split(1, 1, 1)
    assert [[case.name for case in part] for part in parts] == [["a"], ["b"], ["c"]]
    assert [len(part) for part in dataset.split(2, 0, 0)] == [2, 0, 0]
    for counts in ((3, 1, 0), (-1, 1, 1)):
        with pytest.raises(ValueError, match="sum to at most 3"):
            dataset.split(*counts)


def test_a_folder_of_images_alone_is_a_list_of_cases(folder: Path) -> None:
    (folder / "imagesTr/.tmp-1-x_0000.nii.gz").write_bytes(b"left by a killed run")
    cases = image_cases(folder / "imagesTr")
    assert [case.name for case in cases] == ["a", "b", "c"]
    assert all(len(case.images) == 2 and case.label is None for case in cases)
    image, label, _ = cases[0].load()
    assert image.shape == (2, 6, 5, 4)
    assert label is None


def test_an_image_without_a_channel_number_is_named_rather_than_passed_over(folder: Path) -> None:
    (folder / "imagesTr/d.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"d\.nii\.gz: must be named like CASE_0000\.nii\.gz"):
        image_cases(folder / "imagesTr")
    with pytest.raises(DataError, match=r"d\.nii\.gz: .* without a channel number"):
        Dataset.open(folder)


def test_a_missing_channel_of_an_images_folder_is_named(folder: Path) -> None:
    (folder / "imagesTr/b_0000.nii.gz").unlink()
    with pytest.raises(DataError, match=r"b_0000\.nii\.gz: no such file"):
        image_cases(folder / "imagesTr")[1].load()


def test_a_slice_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    _save(tmp_path / "x_0000.nii.gz", np.ones((6, 5), np.float32))
    case = Case("x", (tmp_path / "x_0000.nii.gz",), None)
    assert case.load()[0].shape == (1, 6, 5, 1)


@pytest.mark.data
def test_the_hippocampus_cases_are_in_order(data_dir: Path) -> None:
    dataset = Dataset.open(data_dir)
    assert dataset.num_classes == 3
    assert len(dataset.cases) == 202
    assert dataset.problems() == []


# --- dataset.json as version 2 of nnU-Net reads it


@pytest.mark.parametrize(
    "training",
    [
        [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        ["./labelsTr/a.nii.gz"],
        ["nobody"],
        [{"image": "a"}, 7],
        {"a": 1},
    ],
)
def test_a_training_list_is_not_read_in_version_2(folder: Path, training: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(VERSION_2 | {"training": training}))
    dataset = Dataset.open(folder)
    assert [case.name for case in dataset.cases] == ["a", "b", "c"]
    assert dataset.problems() == []


@pytest.mark.parametrize("training", [[{"image": "a"}], [7], [{"image": "a", "label": 3}]])
def test_a_training_list_of_version_1_without_labels_is_refused(
    folder: Path, training: object
) -> None:
    content = {"modality": {"0": "T1"}, "labels": {"0": "background"}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"dataset\.json: 'training' must list the image and"):
        Dataset.open(folder)


@pytest.mark.parametrize("place", ["relative", "absolute", "variable"])
def test_the_key_dataset_names_the_files_of_each_case(
    folder: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGES_OF_TEST", str(folder))
    root = {"relative": f"../{folder.name}", "absolute": str(folder), "variable": "$IMAGES_OF_TEST"}
    entries = {
        # The order, not the name, says which channel a file is.
        name: {
            "images": [f"{root[place]}/imagesTr/{case}_{k:04d}.nii.gz" for k in (1, 0)],
            "label": f"{root[place]}/labelsTr/{case}.nii.gz",
        }
        for name, case in (("y", "b"), ("x", "c"))
    }
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset.json").write_text(json.dumps(VERSION_2 | {"dataset": entries}))
    dataset = Dataset.open(other)
    assert [case.name for case in dataset.cases] == ["x", "y"]
    assert dataset.problems() == []
    image, label, _ = dataset.cases[1].load()
    stored = [nib.load(folder / f"imagesTr/b_{k:04d}.nii.gz").get_fdata() for k in (1, 0)]
    np.testing.assert_array_equal(image, stored)
    np.testing.assert_array_equal(label, nib.load(folder / "labelsTr/b.nii.gz").get_fdata())


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "must list at least one case"),
        ([], r"dataset.*must be a valid dict"),
        ({"a": {"images": ["a_0000.nii.gz"]}}, r"a\.label is missing"),
        ({"a": {"images": [], "label": "a.nii.gz"}}, r"a\.images.* at least 1 item"),
        (
            {"a": {"images": ["a_0000.nii.gz"], "label": 3}},
            r"a\.label must be a valid string, got 3",
        ),
    ],
)
def test_entries_of_the_key_dataset_without_sense_name_the_file(
    folder: Path, entries: object, words: str
) -> None:
    (folder / "dataset.json").write_text(json.dumps(VERSION_2 | {"dataset": entries}))
    with pytest.raises(DataError, match=words) as caught:
        Dataset.open(folder)
    assert str(caught.value).startswith(f"{folder / 'dataset.json'}: ")


def test_a_missing_file_of_the_key_dataset_is_named(folder: Path) -> None:
    entries = {
        "x": {"images": ["imagesTr/a_0000.nii.gz", "gone.nii.gz"], "label": "labelsTr/a.nii.gz"}
    }
    (folder / "dataset.json").write_text(json.dumps(VERSION_2 | {"dataset": entries}))
    (problem,) = Dataset.open(folder).problems()
    assert str(problem) == f"{folder / 'gone.nii.gz'}: no such file"


@pytest.mark.parametrize("ending", [None, 3, [".nii"], "nii.gz", "", "../x", "*.nii"])
def test_a_file_ending_without_sense_names_the_file(folder: Path, ending: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(VERSION_2 | {"file_ending": ending}))
    with pytest.raises(
        DataError, match=r"dataset\.json: 'file_ending' must be like \.nii\.gz, got"
    ):
        Dataset.open(folder)


def test_a_file_of_all_channels_may_have_a_channel_number(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    stack = np.random.default_rng(0).random((6, 5, 4, 2), dtype=np.float32)
    _save(folder / "imagesTr/a_0000.nii.gz", stack)
    _save(folder / "labelsTr/a.nii.gz", np.ones((6, 5, 4), np.uint8))
    (folder / "dataset.json").write_text(json.dumps(VERSION_2))
    dataset = Dataset.open(folder)
    assert dataset.problems() == []
    np.testing.assert_array_equal(dataset.cases[0].load()[0], np.moveaxis(stack, -1, 0))
