"""`fastcal.evaluate.evaluate_folder`: nnU-Net's summary.json and what is added to it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import (
    CASES,
    SHAPE,
    random_labels,
    random_probabilities,
    shifted_header,
    write_cohort,
    write_dataset_json,
    write_member,
    write_nifti,
)

from fastcal.core.errors import DataError
from fastcal.evaluate import evaluate_folder, overlap, surface_scores
from fastcal.predict import ensemble_folders

VOXEL_ML = 2.0 * 1.5 * 3.0 / 1000


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """``labels`` and ``out``, an ensemble with its probabilities."""
    folders, labels, *_ = write_cohort(tmp_path)
    write_dataset_json(tmp_path)
    ensemble_folders(folders, tmp_path / "out", labels=labels, save_probabilities=True)
    return tmp_path


def evaluate(folder: Path, **options: object) -> dict:
    options = {"surface": False, **options}
    return evaluate_folder(folder / "labels", folder / "out", folder / "summary.json", **options)


def test_summary_is_a_superset_of_nnunets(predicted: Path) -> None:
    summary = evaluate(predicted)
    assert json.loads((predicted / "summary.json").read_text()) == summary
    assert [record["case"] for record in summary["metric_per_case"]] == list(CASES)
    for record in summary["metric_per_case"]:
        reference = np.asarray(nib.load(record["reference_file"]).dataobj)
        prediction = np.asarray(nib.load(record["prediction_file"]).dataobj)
        for key, metrics in record["metrics"].items():
            ours, theirs = prediction == int(key), reference == int(key)
            tp, fp, fn = (ours & theirs).sum(), (ours & ~theirs).sum(), (~ours & theirs).sum()
            expected = {
                "Dice": 2 * tp / (2 * tp + fp + fn),
                "IoU": tp / (tp + fp + fn),
                "FP": fp,
                "TP": tp,
                "FN": fn,
                "TN": (~ours & ~theirs).sum(),
                "n_pred": tp + fp,
                "n_ref": tp + fn,
                "volume_pred_ml": (tp + fp) * VOXEL_ML,
                "volume_ref_ml": (tp + fn) * VOXEL_ML,
            }
            assert metrics == pytest.approx(expected, rel=1e-6)
    for key in ("1", "2"):
        dice = [record["metrics"][key]["Dice"] for record in summary["metric_per_case"]]
        assert summary["mean"][key]["Dice"] == pytest.approx(np.mean(dice), rel=1e-12)
    both = [summary["mean"][key]["Dice"] for key in ("1", "2")]
    assert summary["foreground_mean"]["Dice"] == pytest.approx(np.mean(both), rel=1e-12)


def test_calibration_from_saved_probabilities_is_that_of_the_ensembles_own_pass(
    predicted: Path,
) -> None:
    summary = evaluate(predicted)
    own = json.loads((predicted / "out/calibration.json").read_text())
    assert summary["calibration"]["pooled"] == own["pooled"]
    assert summary["calibration"]["case"] == own["case"]
    assert summary["calibration"]["n_cases"] == 3
    ece = [record["calibration"]["ECE"] for record in summary["metric_per_case"]]
    assert summary["calibration"]["case"]["ECE"] == pytest.approx(np.mean(ece), rel=1e-12)


def test_regions_and_fine_cells_are_counted_in_the_pass_of_the_ensemble_too(
    predicted: Path,
) -> None:
    options = {"regions": ["box:2:1", "band:2", "foreground"], "fine_bins": 1024}
    summary = evaluate(predicted, **options)["calibration"]
    folders = sorted(predicted.glob("fold_*"))
    ensemble_folders(
        folders, predicted / "out", labels=predicted / "labels", overwrite=True, **options
    )
    own = json.loads((predicted / "out/calibration.json").read_text())
    for reduction in ("pooled", "case"):
        assert summary["regions"][reduction] == own["regions"][reduction]
        assert summary[reduction] == own[reduction]
    pooled = summary["regions"]["pooled"]
    assert 0 < pooled["foreground"]["n_voxels"] <= pooled["box:2:1"]["n_voxels"]
    assert {"AUROC", "AURC", "E_AURC", "adaptive_ECE", "TACE"} <= pooled["band:2"].keys()


def test_a_region_of_a_case_is_what_its_mask_says(predicted: Path) -> None:
    summary = evaluate(predicted, regions=["foreground", "prediction"])
    for record in summary["metric_per_case"]:
        found = record["calibration_of_regions"]
        for name, key in (("foreground", "reference_file"), ("prediction", "prediction_file")):
            labels = np.asarray(nib.load(record[key]).dataobj)
            assert found[name]["n_voxels"] == (labels != 0).sum()
    settings = summary["settings"]
    assert (settings["regions"], settings["fine_bins"]) == (["foreground", "prediction"], 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sphere", "region must be box.*, got 'sphere'"),
        ("band", "region must be box.*, got 'band'"),
        ("box:8:2:1", "region must be box.*, got 'box:8:2:1'"),
        ("box:x", "region must be box.*, got 'box:x'"),
        ("band:-1", "region must have margins of at least 0 and at most 1000000, got 'band:-1'"),
    ],
)
def test_a_word_that_is_no_region_is_told(predicted: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(predicted, regions=[name])


def test_regions_of_an_ensemble_come_from_labels(predicted: Path) -> None:
    folders = sorted(predicted.glob("fold_*"))
    with pytest.raises(ValueError, match="regions must be empty without labels, got"):
        ensemble_folders(folders, predicted / "new", regions=["box"])
    with pytest.raises(ValueError, match="regions must be made from the labels, got 'prediction'"):
        ensemble_folders(
            folders, predicted / "new", labels=predicted / "labels", regions=["prediction"]
        )


def test_calibration_is_null_where_there_are_no_probabilities(predicted: Path) -> None:
    (predicted / "out/case_b.npz").unlink()
    summary = evaluate(predicted)
    assert [record["calibration"] is None for record in summary["metric_per_case"]] == [
        False,
        True,
        False,
    ]
    assert summary["calibration"]["n_cases"] == 2
    assert summary["calibration"]["cases_without_probabilities"] == ["case_b"]
    assert evaluate(predicted, probabilities=False)["calibration"] is None


def test_structure_that_is_nowhere_is_nan_and_left_out_of_means(predicted: Path) -> None:
    for folder in ("labels", "out"):
        write_nifti(predicted / folder / "case_a.nii.gz", np.zeros(SHAPE, np.uint8))
    summary = evaluate(predicted, surface=True, probabilities=False)
    first, *others = (record["metrics"]["1"] for record in summary["metric_per_case"])
    for name in ("Dice", "IoU", "HD95", "SurfaceDice"):
        assert math.isnan(first[name])
        mean = np.mean([metrics[name] for metrics in others])
        assert summary["mean"]["1"][name] == pytest.approx(mean, rel=1e-12)
    assert first["volume_ref_ml"] == 0.0
    assert '"Dice": NaN' in (predicted / "summary.json").read_text()


def test_surface_scores_are_in_millimetres_of_the_files_spacing(tmp_path: Path) -> None:
    block = np.zeros(SHAPE, np.uint8)
    block[1:5, 1:5, 1:4] = 1
    write_nifti(tmp_path / "labels/case_a.nii.gz", block)
    write_nifti(tmp_path / "out/case_a.nii.gz", np.roll(block, 1, axis=0))
    options = {"num_classes": 2, "surface": True}
    loose = evaluate(tmp_path, tolerance_mm=2.0, **options)["mean"]["1"]
    tight = evaluate(tmp_path, tolerance_mm=1.9, **options)["mean"]["1"]
    assert loose["HD95"] == pytest.approx(2.0, rel=1e-6)
    assert loose["SurfaceDice"] == 1.0
    # Each block has 44 surface voxels, 12 of them the face that moved 2 mm off the other's.
    assert tight["SurfaceDice"] == pytest.approx(32 / 44, rel=1e-6)
    assert loose["Dice"] == 0.75


def test_surface_of_an_empty_mask_is_nan_and_surface_dice_zero_if_only_one_is() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    one = surface_scores(full, empty, spacing=(1.0, 1.0, 1.0))
    assert math.isnan(one["HD95"])
    assert one["SurfaceDice"] == 0.0
    none = surface_scores(empty, empty, spacing=(1.0, 1.0, 1.0))
    assert all(math.isnan(value) for value in none.values())
    same = surface_scores(full, full, spacing=(1.0, 1.0, 1.0))
    assert same == {"HD95": 0.0, "SurfaceDice": 1.0}


def test_overlap_leaves_ignored_voxels_out_of_every_count() -> None:
    rng = np.random.default_rng(0)
    reference, prediction, kept = (rng.random((3, *SHAPE)) > 0.5)[:]
    scores = overlap(reference, prediction, kept=kept)
    parts = overlap(reference[kept], prediction[kept])
    assert scores == parts
    assert scores["TP"] + scores["FP"] + scores["FN"] + scores["TN"] == kept.sum()


def test_ignore_label_is_left_out_of_everything(predicted: Path) -> None:
    write_dataset_json(predicted / "out", labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    reference = np.asarray(nib.load(predicted / "labels/case_a.nii.gz").dataobj).copy()
    reference[2:] = 3
    write_nifti(predicted / "labels/case_a.nii.gz", reference)
    first = evaluate(predicted)["metric_per_case"][0]
    assert first["calibration"]["n_voxels"] == reference[:2].size
    assert set(first["metrics"]) == {"1", "2"}
    for metrics in first["metrics"].values():
        assert metrics["TP"] + metrics["FP"] + metrics["FN"] + metrics["TN"] == reference[:2].size


def test_label_map_with_a_fourth_axis_of_one_is_three_dimensional(predicted: Path) -> None:
    plain = evaluate(predicted)["mean"]
    path = predicted / "labels/case_a.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., None], None, image.header), path)
    assert evaluate(predicted)["mean"] == plain


def test_regions_are_scored_under_nnunets_keys(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    write_dataset_json(
        tmp_path / "out",
        labels={"background": 0, "whole": [1, 2], "core": 2},
        regions_class_order=[1, 2],
    )
    probabilities = rng.random((2, *SHAPE)).astype(np.float32)
    write_member(tmp_path / "out", {"case_a": probabilities})
    reference, prediction = random_labels(rng), random_labels(rng)
    write_nifti(tmp_path / "labels/case_a.nii.gz", reference)
    write_nifti(tmp_path / "out/case_a.nii.gz", prediction)
    summary = evaluate(tmp_path)
    assert list(summary["mean"]) == ["(1, 2)", "2"]
    whole = overlap(reference > 0, prediction > 0)
    assert summary["mean"]["(1, 2)"]["Dice"] == whole["Dice"]
    target = np.stack([reference > 0, reference == 2])
    brier = ((probabilities.astype(np.float64) - target) ** 2).sum(0).mean()
    assert summary["calibration"]["pooled"]["Brier"] == pytest.approx(brier, rel=1e-6)


def test_every_reference_needs_a_prediction_unless_some_may_be_missing(predicted: Path) -> None:
    (predicted / "out/case_c.nii.gz").unlink()
    with pytest.raises(DataError, match=r"out: no prediction for 1 of 3 .*case_c; .*--allow"):
        evaluate(predicted)
    assert not (predicted / "summary.json").exists()
    assert len(evaluate(predicted, allow_missing=True)["metric_per_case"]) == 2


def test_a_case_that_was_not_predicted_is_listed_with_keep_going(predicted: Path) -> None:
    (predicted / "out/case_c.nii.gz").unlink()
    summary = evaluate(predicted, keep_going=True)
    reason = f"{predicted / 'out'}: no prediction of case case_c"
    assert summary["failed"] == [{"case": "case_c", "reason": reason}]
    assert len(summary["metric_per_case"]) == 2


def test_structures_have_the_names_of_dataset_json(predicted: Path) -> None:
    described = json.loads((predicted / "dataset.json").read_text())["labels"]
    names = {str(value): name for name, value in described.items() if value}
    assert evaluate(predicted)["labels"] == names
    (predicted / "dataset.json").unlink()
    assert evaluate(predicted, num_classes=3)["labels"] == {}


def test_the_file_is_written_into_a_folder_that_is_made_for_it(predicted: Path) -> None:
    target = predicted / "scores/all/summary.json"
    evaluate_folder(predicted / "labels", predicted / "out", target, surface=False)
    assert target.is_file()
    with pytest.raises(DataError, match=r"all: must be a file to write, got a folder"):
        evaluate_folder(predicted / "labels", predicted / "out", target.parent, surface=False)


def test_prediction_without_reference_is_named(predicted: Path) -> None:
    (predicted / "labels/case_c.nii.gz").unlink()
    with pytest.raises(DataError, match=r"out/case_c\.nii\.gz: no reference"):
        evaluate(predicted)


def break_shape(folder: Path) -> str:
    header = shifted_header(0.0)
    write_nifti(folder / "out/case_b.nii.gz", np.zeros((7, 6, 4), np.uint8), header)
    return r"out/case_b\.nii\.gz: shape 7 x 6 x 4 differs from 7 x 6 x 5"


def break_affine(folder: Path) -> str:
    write_nifti(folder / "out/case_b.nii.gz", np.zeros(SHAPE, np.uint8), shifted_header(4.0))
    return r"out/case_b\.nii\.gz: its affine differs"


def break_value(folder: Path) -> str:
    write_nifti(folder / "labels/case_b.nii.gz", np.full(SHAPE, 3, np.uint8))
    return r"labels/case_b\.nii\.gz: labels must be from 0 to 2, got 3 "


def break_fraction(folder: Path) -> str:
    write_nifti(folder / "labels/case_b.nii.gz", np.full(SHAPE, 0.5, np.float32))
    return r"labels/case_b\.nii\.gz: labels must be integers, got fractions"


def break_gz(folder: Path) -> str:
    path = folder / "out/case_b.nii.gz"
    path.write_bytes(path.read_bytes()[:50])
    return r"out/case_b\.nii\.gz: "


def break_npz(folder: Path) -> str:
    path = folder / "out/case_b.npz"
    path.write_bytes(path.read_bytes()[:-30])
    return r"out/case_b\.npz: damaged, or not an npz file"


def break_classes(folder: Path) -> str:
    values = random_probabilities(np.random.default_rng(0), 4)
    np.savez(folder / "out/case_b.npz", probabilities=values.transpose(0, 3, 2, 1))
    return r"out/case_b\.npz: probabilities must be of 3 classes, got 4"


def break_nan(folder: Path) -> str:
    values = random_probabilities(np.random.default_rng(0))
    values[:, 0, 0, 0] = np.nan
    np.savez(folder / "out/case_b.npz", probabilities=values.transpose(0, 3, 2, 1))
    return r"out/case_b\.npz: 1 voxels without valid probabilities"


@pytest.mark.parametrize(
    "damage",
    [
        break_shape,
        break_affine,
        break_value,
        break_fraction,
        break_gz,
        break_npz,
        break_classes,
        break_nan,
    ],
)
def test_bad_case_is_one_line_that_names_the_file_and_spares_the_others(
    predicted: Path, damage
) -> None:
    message = damage(predicted)
    with pytest.raises(DataError, match=message) as caught:
        evaluate(predicted)
    assert "\n" not in str(caught.value)
    assert not (predicted / "summary.json").exists()
    summary = evaluate(predicted, keep_going=True)
    assert [record["case"] for record in summary["metric_per_case"]] == ["case_a", "case_c"]
    assert summary["failed"] == [{"case": "case_b", "reason": str(caught.value)}]


def test_failure_keeps_the_summary_that_was_there(predicted: Path) -> None:
    evaluate(predicted)
    before = (predicted / "summary.json").read_bytes()
    break_value(predicted)
    with pytest.raises(DataError):
        evaluate(predicted)
    assert (predicted / "summary.json").read_bytes() == before


def test_number_of_classes_is_asked_for_where_nothing_tells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("deep/er/labels", "deep/er/out"):
        write_nifti(tmp_path / folder / "case_a.nii.gz", random_labels(rng))
    with pytest.raises(DataError, match=r"no dataset\.json .* num_classes"):
        evaluate(tmp_path / "deep/er")
    assert list(evaluate(tmp_path / "deep/er", num_classes=3)["mean"]) == ["1", "2"]


def test_empty_and_missing_folders_are_named(predicted: Path) -> None:
    (predicted / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no label maps"):
        evaluate_folder(predicted / "labels", predicted / "empty", predicted / "x.json")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        evaluate_folder(predicted / "nowhere", predicted / "out", predicted / "x.json")


def test_missing_monai_names_the_extra_that_brings_it(
    predicted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    assert evaluate(predicted)["settings"]["tolerance_mm"] is None
    with pytest.raises(ImportError, match=r"fastcal\[train\]"):
        evaluate(predicted, surface=True)
