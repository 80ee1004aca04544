"""Quality for folders and on the command line: fit, predict, evaluate, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cohort import (
    CASES,
    random_labels,
    random_probabilities,
    write_cohort,
    write_dataset_json,
    write_member,
    write_nifti,
)
from segment_tables import table, write_folder

from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.predict import ensemble_folders
from fastcal.quality import (
    QualityPredictor,
    evaluate_quality,
    filtered_dice,
    fit_quality,
    load,
    predict_quality,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scores and Dice of forty cases."""
    return write_folder(tmp_path / "validation", table(40))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Scores of other cases without a Dice; one structure is not predicted, one is uncertain."""
    made = table(12, seed=9)
    scores = {name: column.copy() for name, column in made.scores.items()}
    for name in scores:
        scores[name][4] = 0.0 if name == "volume" else np.nan
    scores["binary_entropy"][7], scores["volume"][7] = 0.68, 2000.0
    return write_folder(tmp_path / "new", replace(made, scores=scores, dice=None))


def run(*words: object) -> int:
    return main([str(word) for word in words])


# --- fit and predict ------------------------------------------------------------------------------


def test_the_fit_of_a_folder_is_that_of_its_table(folder: Path, tmp_path: Path) -> None:
    found = fit_quality(folder, tmp_path / "q.json", summary=folder / "summary.json")
    expected = QualityPredictor().fit(table(40)).line()
    line = load(tmp_path / "q.json").line()
    assert (line.slope, line.intercept) == pytest.approx((expected.slope, expected.intercept))
    assert (found.n_cases, found.n_training, found.n_calibration) == (40, 80, 0)


def test_the_worst_structures_stand_first_with_the_reason(
    folder: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "q.json"
    scores = ("--scores", "binary_entropy", "volume", "--model", "ridge", "--level", 0.9)
    summary = ("--summary", folder / "summary.json")
    assert run("quality", "fit", "-i", folder, *summary, "-o", file, *scores) == 0
    assert "fitted to 40 structures of 40 cases, calibrated with 40" in capsys.readouterr().out
    assert run("quality", "predict", "-c", file, "-i", new, "-o", tmp_path / "out", "--top", 2) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = predict_quality(file, new)
    assert [row.dice for row in rows] == sorted(row.dice for row in rows)
    assert (rows[0].case, rows[0].structure, rows[0].reason) == (
        "case_002",
        "anterior",
        "not predicted",
    )
    assert (rows[1].case, rows[1].structure) == ("case_003", "posterior")
    assert "binary_entropy 0.68 is above every one of the training" in rows[1].reason
    assert "volume 2000 is above every one of the training" in rows[1].reason
    assert "case_002" in printed[3]
    assert "not predicted" in printed[3]
    assert "case_003" in printed[4]
    assert printed[-2] == "22 more with a higher Dice; --top 0 prints all"

    content = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert [one["case"] for one in content["structures"]] == [row.case for row in rows]
    with (tmp_path / "out" / "quality.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert [float(one["dice"]) for one in written] == [row.dice for row in rows]
    assert (tmp_path / "out" / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_a_rare_score_is_a_reason_and_a_usual_one_is_not(tmp_path: Path) -> None:
    made = table(40)
    own = np.sort(made.of("anterior").scores["binary_entropy"])
    rare, usual = (own[-2] + own[-1]) / 2, own[20]
    asked = replace(
        table(2, structures=("anterior",)),
        scores={"binary_entropy": np.array([rare, usual])},
        dice=None,
    )
    predictor = QualityPredictor().fit(made)
    rows = predict_quality(predictor, write_folder(tmp_path / "asked", asked))
    assert [row.reason for row in rows] == [
        f"binary_entropy {rare:.4g} is above 98 % of the training",
        "",
    ]


def test_a_missing_score_is_a_reason_only_where_the_training_had_it(tmp_path: Path) -> None:
    made = table(40)
    thin = np.array([name == "posterior" for name in made.structures])
    scores = made.scores | {"interior_entropy": np.where(thin, np.nan, made.scores["volume"])}
    predictor = QualityPredictor(
        "ridge", scores=("binary_entropy", "interior_entropy"), level=0.9
    ).fit(replace(made, scores=scores))
    asked = {"binary_entropy": [0.3, 0.3], "interior_entropy": [np.nan, np.nan], "volume": [9, 9]}
    columns = {name: np.array(column, float) for name, column in asked.items()}
    folder = write_folder(tmp_path / "asked", replace(table(1), scores=columns, dice=None))
    reasons = {row.structure: row.reason for row in predict_quality(predictor, folder)}
    assert reasons == {"anterior": "no interior_entropy", "posterior": ""}


@pytest.mark.parametrize("model", ["linear", "forest"])
def test_pictures_show_the_fit_per_structure_or_together(model: str) -> None:
    from fastcal.quality.pictures import _line_panel, _predicted_panel, fit_picture

    predictor = QualityPredictor(model, per_structure=True, n_trees=5, level=0.8).fit(table(40))
    known = replace(table(6, seed=2))
    assert fit_picture(predictor, known).startswith(b"\x89PNG")
    if model == "linear":
        panel = _line_panel(predictor, "anterior", known)
        np.testing.assert_array_equal(panel.points["anterior"][1], known.of("anterior").dice)
        inside = predictor.predict_interval(panel.grid, ["anterior"] * len(panel.grid))
        np.testing.assert_array_equal(panel.band, inside)
    else:
        panel = _predicted_panel(predictor, replace(known, dice=None))
        assert len(panel.unknown) == len(known)


# --- evaluate -------------------------------------------------------------------------------------


def test_scores_of_scores_are_shown_beside_random_and_oracle(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, test = tmp_path / "q.json", write_folder(tmp_path / "test", table(30, seed=4))
    fit_quality(folder, file, summary=folder / "summary.json")
    summary = ("--summary", test / "summary.json")
    assert (
        run(
            *("quality", "evaluate", "-i", test, *summary, "-c", file, "-o", tmp_path / "out"),
            *("--failure-dice", 0.5, "--resamples", 50),
        )
        == 0
    )
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "quality_scores.json").read_text())
    assert list(content["measures"]) == [
        *("binary_entropy", "pairwise_dice", "predicted Dice", "random order", "oracle order")
    ]
    measures = content["measures"]
    assert measures["oracle order"]["auroc"]["value"] == 1.0
    assert measures["random order"]["auroc"]["value"] == 0.5
    order = ["oracle order", "binary_entropy", "random order"]
    areas = [measures[name]["augrc"]["value"] for name in order]
    assert areas == sorted(areas)
    # A monotone function of one score orders as the score does.
    same = [measures[name]["augrc"] for name in ("binary_entropy", "predicted Dice")]
    assert same[0] == pytest.approx(same[1])
    coverage = content["predictor"]["structures"]["all"]["coverage"]
    assert coverage["low"] <= coverage["value"] <= coverage["high"]
    assert 0.85 < coverage["value"] <= 1
    assert "predictor, anterior: MAE" in printed
    assert "60 structures of 30 cases" in printed
    assert "no pearson of" not in printed


def test_coverage_and_error_are_those_of_the_predictions(tmp_path: Path) -> None:
    made = table(30, seed=4)
    test = write_folder(tmp_path / "test", made)
    predictor = QualityPredictor(level=0.5).fit(table(40))
    found = evaluate_quality(
        test, summary=test / "summary.json", predictor=predictor, n_resamples=10
    )
    bounds = predictor.predict_interval(made)
    inside = (bounds[:, 0] <= made.dice) & (made.dice <= bounds[:, 1])
    everything = found.predictor["structures"]["all"]
    assert everything["coverage"]["value"] == pytest.approx(inside.mean())
    errors = np.abs(predictor.predict(made) - made.dice)
    assert everything["mae"]["value"] == pytest.approx(errors.mean())
    assert everything["mean_width"] == pytest.approx((bounds[:, 1] - bounds[:, 0]).mean())


def test_without_failures_auroc_is_missing_and_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = ("--summary", folder / "summary.json")
    words = ("quality", "evaluate", "-i", folder, *summary, "--failure-dice", 0.001)
    assert run(*words, "--resamples", 5) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no ")]
    assert lines == ["no auroc of binary_entropy and 11 more: no structure has a Dice below 0.001"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_filtered_dice_of_label_groups_is_scaled_by_the_largest_sum_of_their_entropies(
    tmp_path: Path, ending: str
) -> None:
    if ending == ".nrrd":
        pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(3)
    member, references = tmp_path / "member", tmp_path / "labels"
    groups = {"background": 0, "whole": [1, 2], "core": [2]}
    write_dataset_json(member, labels=groups, regions_class_order=[1, 2], file_ending=ending)
    scores = []
    for case in CASES:
        p = rng.random((2, 7, 6, 5)).astype(np.float32)
        reference = random_labels(rng)
        write_member(member, {case: p})
        write_nifti(references / f"{case}.nii.gz", reference)
        entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(0, dtype=np.float64)
        assert entropy.max() > np.log(2)
        painted = np.where(p[1] > 0.5, 2, p[0] > 0.5)
        masks = painted == 2, reference == 2
        scores.append(filtered_dice(entropy / (2 * np.log(2)), *masks).score)
    ensemble_folders([member], tmp_path / "out")
    found = evaluate_quality(tmp_path / "out", labels=references, maps=["entropy"], n_resamples=20)
    curves = found.filtered["entropy"]["core"]
    assert curves["score"]["value"] == pytest.approx(np.mean(scores), abs=1e-5)


def test_a_map_of_other_channels_than_structures_is_refused(tmp_path: Path) -> None:
    folders, labels, *_ = write_cohort(tmp_path)
    write_dataset_json(tmp_path)
    ensemble_folders(folders, tmp_path / "out", maps=["mean"])
    with pytest.raises(DataError, match="one value per voxel or 2, one per structure, got 3"):
        evaluate_quality(tmp_path / "out", labels=labels, maps=["mean"])


def test_filtered_dice_of_a_folder_is_the_mean_of_its_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(2)
    predicted, references = tmp_path / "predicted", tmp_path / "labels"
    write_dataset_json(predicted)
    scores = []
    for case in CASES:
        p = random_probabilities(rng)
        entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(0)
        label, reference = p.argmax(0).astype(np.uint8), random_labels(rng)
        write_nifti(predicted / f"{case}.nii.gz", label)
        write_nifti(predicted / "entropy" / f"{case}.nii.gz", entropy.astype(np.float32))
        write_nifti(references / f"{case}.nii.gz", reference)
        scores.append(filtered_dice(entropy / np.log(3), label == 2, reference == 2).score)
    made = table(3)
    names = dict(zip(made.cases_present, CASES, strict=True))
    write_folder(predicted, replace(made, cases=tuple(names[case] for case in made.cases)))
    found = evaluate_quality(predicted, labels=references, maps=["entropy"], n_resamples=20)
    curves = found.filtered["entropy"]["posterior"]
    assert curves["score"]["value"] == pytest.approx(np.mean(scores), abs=1e-5)
    assert len(curves["dice"]["mean"]) == 41
    words = ("quality", "evaluate", "-i", predicted, "-g", references, "--maps", "variance")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert "variance: no such folder: predict with --map variance" in error
    assert error.count("\n") == 1  # no case was read before
    for name in ("../labels", ".", "..", "entropy/.."):
        assert run(*words[:-1], name) == 2
        assert f"maps must be names of folders in {predicted}, got '{name}'" in (
            capsys.readouterr().err.replace("\n", "")
        )
    fit = ("quality", "fit", "-i", predicted, "-g", references, "-o", tmp_path / "q.json")
    assert run(*fit, "--score", "bogus") == 2
    error = capsys.readouterr().err
    assert "bogus" in error
    assert error.count("\n") == 1


# --- bad input ------------------------------------------------------------------------------------


def test_bad_input_of_the_commands_is_one_line(
    folder: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "q.json"
    summary = ("--summary", folder / "summary.json")
    fit = ("quality", "fit", "-i", folder, "-o", file)
    few = write_folder(tmp_path / "few", table(1))
    liver = write_folder(tmp_path / "liver", table(5, structures=("liver",)))
    kept = tmp_path / "not_kept"
    unkept = {"pairwise_dice": np.full(10, np.nan), "volume": np.ones(10)}
    write_folder(kept, replace(table(5), scores=unkept))
    fit_kept = ("quality", "fit", "-i", kept, "--summary", kept / "summary.json", "-o", file)
    assert run(*fit, *summary) == 0
    capsys.readouterr()
    for words, line in [
        ((*fit,), "labels must be given or else summary, got neither"),
        ((*fit, *summary, "--scores", "a", "b"), "for 2 scores, got 'linear'"),
        ((*fit, *summary, "--scores", "energy"), "scores must be among binary_entropy, "),
        ((*fit, *summary, "--level", 1.5), "--level must be from 0 to 1, got 1.5"),
        ((*fit, "--summary", tmp_path / "no.json"), "no.json: no such file"),
        (
            ("quality", "fit", "-i", few, "--summary", few / "summary.json", "-o", file),
            f"{few}: must hold at least 3 structures",
        ),
        (
            ("quality", "predict", "-c", file, "-i", liver),
            f"{liver}: structures must be among those of the fit, anterior, posterior, got liver",
        ),
        (("quality", "predict", "-c", file, "-i", tmp_path / "nowhere"), "no such folder"),
        (("quality", "predict", "-c", folder / "summary.json", "-i", new), "summary.json: "),
        (("quality", "predict", "-c", file, "-i", new, "--top", -1), "--top must be at least 0"),
        (
            (*fit_kept, "--scores", "pairwise_dice"),
            f"{kept}: must hold at least 3 structures with scores and a Dice for the model",
        ),
        (
            ("quality", "evaluate", "-i", folder, *summary, "--maps", "entropy"),
            "maps must be empty without labels, got entropy",
        ),
        (
            ("quality", "evaluate", "-i", folder, *summary, "--failure-dice", 2),
            "--failure-dice must be from 0 to 1, got 2",
        ),
    ]:
        assert run(*words) == 2, words
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1, printed
        assert line in printed, words
