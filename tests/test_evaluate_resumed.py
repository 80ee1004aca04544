"""An evaluation that was stopped goes on with the cases that are left, to the same file."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from cohort import files_in, write_cohort, write_dataset_json

from fastcal.cases.loop import Progress
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders


class Stop(Exception):
    """The process ends."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``labels`` and ``out``, an ensemble with its probabilities."""
    folder = tmp_path_factory.mktemp("made")
    folders, labels, *_ = write_cohort(folder)
    write_dataset_json(folder)
    ensemble_folders(folders, folder / "out", labels=labels, save_probabilities=True)
    return folder


@pytest.fixture
def predicted(made: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(made, tmp_path / "project")


def evaluate(folder: Path, *, stop_after: int | None = None, **options: object) -> list[str]:
    """Evaluate; return the cases that were scored, in order."""
    seen: list[str] = []

    def progress(state: Progress) -> None:
        seen.append(state.case)
        if len(seen) == stop_after:
            raise Stop

    options = {"surface": False, "regions": ["box:8:2"], "progress": progress, **options}
    with suppress(Stop):
        evaluate_folder(folder / "labels", folder / "out", folder / "summary.json", **options)
    return seen


def summary_of(folder: Path) -> bytes:
    return (folder / "summary.json").read_bytes()


def test_finished_cases_are_not_scored_again(predicted: Path) -> None:
    evaluate(predicted)
    whole = summary_of(predicted)
    (predicted / "summary.json").unlink()
    assert evaluate(predicted, stop_after=2) == ["case_a", "case_b"]
    assert evaluate(predicted) == ["case_c"]
    assert summary_of(predicted) == whole
    assert not (predicted / "summary.json.partial").exists()


@pytest.mark.filterwarnings("ignore:.*the most probable class differs")
@pytest.mark.parametrize("changed", ["labels/case_a.nii.gz", "out/case_a.npz", "out/case_a.nii.gz"])
def test_a_case_whose_file_has_changed_is_scored_again(predicted: Path, changed: str) -> None:
    evaluate(predicted, stop_after=2)
    other = predicted / changed.replace("case_a", "case_c")
    shutil.copyfile(other, predicted / changed)
    assert evaluate(predicted) == ["case_a", "case_c"]
    resumed = summary_of(predicted)
    evaluate(predicted)
    assert summary_of(predicted) == resumed


@pytest.mark.parametrize("options", [{"n_bins": 10}, {"probabilities": False}, {"regions": []}])
def test_other_settings_score_every_case_again(predicted: Path, options: dict[str, object]) -> None:
    evaluate(predicted, stop_after=2)
    assert evaluate(predicted, **options) == ["case_a", "case_b", "case_c"]


def test_a_changed_description_scores_every_case_again(predicted: Path) -> None:
    evaluate(predicted, stop_after=2)
    with (predicted / "out/dataset.json").open("a") as file:
        file.write("\n")
    assert evaluate(predicted) == ["case_a", "case_b", "case_c"]


@pytest.mark.parametrize("place", ["scores/case_a.json", "calibration/case_a.npz"])
def test_a_damaged_case_is_scored_again(predicted: Path, place: str) -> None:
    evaluate(predicted, stop_after=2)
    path = predicted / "summary.json.partial" / place
    path.write_bytes(path.read_bytes()[:-3])
    assert evaluate(predicted) == ["case_a", "case_c"]


def test_undefined_scores_stay_undefined(predicted: Path) -> None:
    import nibabel as nib

    for path in (predicted / "labels/case_a.nii.gz", predicted / "out/case_a.nii.gz"):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(voxels == 2, 1, voxels), image.affine), path)
    options: dict[str, object] = {"probabilities": False}
    evaluate(predicted, stop_after=1, **options)
    evaluate(predicted, **options)
    resumed = summary_of(predicted)
    assert b"NaN" in resumed
    evaluate(predicted, **options)
    assert summary_of(predicted) == resumed


def test_a_second_evaluation_into_one_file_is_refused(predicted: Path) -> None:
    before = files_in(predicted)
    held = sole_use(predicted / "summary.json.partial", "evaluation")
    with held, pytest.raises(DataError, match=r"summary\.json\.partial: is in use by process"):
        evaluate(predicted)
    assert files_in(predicted) == before


def test_what_else_lies_in_the_folder_of_begun_cases_stays(predicted: Path) -> None:
    note = predicted / "summary.json.partial/note.txt"
    note.parent.mkdir()
    note.write_text("mine")
    evaluate(predicted)
    assert [path.name for path in note.parent.iterdir()] == ["note.txt"]
