"""Records of images that consist of several files, and of which description was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cohort import CASES, write_cohort, write_dataset_json

from fastcal.core.errors import DataError
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders, folder_status

sitk = pytest.importorskip("SimpleITK")


def as_metaimage(folder: Path) -> None:
    """Write every NIfTI file at the top of a folder as a header and voxels beside it."""
    for path in sorted(folder.glob("*.nii.gz")):
        image = sitk.ReadImage(path)
        path.unlink()
        sitk.WriteImage(image, path.with_name(path.name.replace(".nii.gz", ".mhd")))


def other_voxels(path: Path) -> None:
    """Change voxels that lie beside a header."""
    voxels = np.fromfile(path, np.uint8)
    np.where(voxels == 1, 0, voxels).tofile(path)


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[list[Path], Path]:
    folders, labels, *_ = write_cohort(tmp_path)
    as_metaimage(labels)
    return folders, labels


def test_labels_whose_voxels_have_changed_beside_their_header_are_named(cohort, tmp_path):
    folders, labels = cohort
    ensemble_folders(folders, tmp_path / "out", labels=labels)
    other_voxels(labels / f"{CASES[1]}.raw")
    with pytest.raises(DataError, match=rf"labels/{CASES[1]}\.raw: has changed since"):
        ensemble_folders(folders, tmp_path / "out", labels=labels)
    assert [one.case for one in folder_status(tmp_path / "out").unfit] == [CASES[1]]


def test_label_maps_whose_voxels_are_not_what_was_written_are_made_again(tmp_path):
    folders, *_ = write_cohort(tmp_path)
    write_dataset_json(tmp_path, file_ending=".mhd")
    ensemble_folders(folders, tmp_path / "out")
    written = (tmp_path / f"out/{CASES[0]}.zraw").read_bytes()
    (tmp_path / f"out/{CASES[0]}.zraw").write_bytes(written[:-4] + bytes(4))
    (tmp_path / f"out/{CASES[1]}.zraw").unlink()
    assert len(folder_status(tmp_path / "out").unfit) == 2
    assert ensemble_folders(folders, tmp_path / "out").done == tuple(CASES[:2])
    assert (tmp_path / f"out/{CASES[0]}.zraw").read_bytes() == written


def test_an_evaluation_scores_a_case_again_whose_voxels_have_changed(cohort, tmp_path):
    folders, labels = cohort
    ensemble_folders(folders, tmp_path / "out")

    def evaluate(stop: bool) -> dict:
        def progress(state):
            if stop and state.done == 2:
                raise KeyboardInterrupt

        return evaluate_folder(
            labels, tmp_path / "out", tmp_path / "scores.json", num_classes=3, surface=False,
            progress=progress,
        )  # fmt: skip

    whole = evaluate(False)
    with pytest.raises(KeyboardInterrupt):
        evaluate(True)
    other_voxels(labels / f"{CASES[0]}.raw")
    now = evaluate(False)
    assert now["metric_per_case"][0]["metrics"] != whole["metric_per_case"][0]["metrics"]


def described_twice(folder: Path) -> tuple[list[Path], Path]:
    """Two members with a description each, of which one has an ignore label."""
    folders, labels, *_ = write_cohort(folder, members=2)
    write_dataset_json(folders[0])
    groups = {"background": 0, "anterior": [1], "posterior": [2]}
    write_dataset_json(folders[1], labels=groups | {"ignore": 3})
    return folders, labels


def test_an_ensemble_read_by_the_description_of_another_member_does_not_go_on(tmp_path):
    folders, labels = described_twice(tmp_path)
    first, second = (folder / "dataset.json" for folder in folders)
    options = {"labels": labels, "out": tmp_path / "out"}
    ensemble_folders(folders, dataset_json=first, **options)
    with pytest.raises(DataError, match=r"made with dataset_json = '.*fold_0/dataset\.json', but"):
        ensemble_folders(folders, dataset_json=second, **options)


def test_an_evaluation_by_another_description_scores_every_case_again(tmp_path):
    folders, labels = described_twice(tmp_path)
    out = tmp_path / "out"
    ensemble_folders(folders[:1], out)
    write_dataset_json(labels, labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    scored = []

    def evaluate(stop: bool, **options):
        def progress(state):
            scored.append(state.case)
            if stop and state.done == 2:
                raise KeyboardInterrupt

        evaluate_folder(labels, out, tmp_path / "s.json", surface=False, progress=progress,
                        **options)  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        evaluate(True)
    scored.clear()
    evaluate(False, dataset_json=labels / "dataset.json")
    assert scored == list(CASES)
