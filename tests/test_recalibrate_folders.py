"""`fit_folders`, `apply_folders`, `fastcal recalibrate`: calibrators over folders of cases."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from cohort import files_in, random_labels, write_cohort, write_dataset_json, write_member
from cohort import write_nifti as write_label_map

import fastcal
from fastcal.cases.reference import read_labels
from fastcal.cli import main
from fastcal.core.errors import DataError, DataWarning
from fastcal.data import phantom
from fastcal.data.predictions import PredictionFolder
from fastcal.evaluate import evaluate_folder
from fastcal.recalibrate import (
    METHODS,
    EnsembleCalibration,
    TemperatureScaling,
    VectorScaling,
    apply_folders,
    fit_folders,
    load,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom labels, and overconfident probabilities of two folds and of three members."""
    folder = tmp_path_factory.mktemp("cohort")
    phantom.write_dataset(
        folder / "data", kind="heart", n_cases=4, n_test=1, seed=1, shape=(24, 20, 6)
    )
    rng = np.random.default_rng(0)
    for kind in ("Tr", "Ts"):
        for number, path in enumerate(sorted((folder / f"data/labels{kind}").iterdir())):
            labels, like = read_labels(path)
            case = path.name.removesuffix(".nii.gz")
            for member in range(3):
                z = 2 * np.eye(4)[labels] + rng.normal(0, 1.2, (*labels.shape, 4))
                p = np.exp(3 * z - (3 * z).max(-1, keepdims=True))
                p = np.moveaxis(p / p.sum(-1, keepdims=True), -1, 0).astype(np.float32)
                places = [folder / f"members/{kind}/{member}"]
                if kind == "Tr" and member == 0:
                    places.append(folder / f"trainer/fold_{number % 2}/validation")
                for place in places:
                    place.mkdir(parents=True, exist_ok=True)
                    np.savez_compressed(
                        place / f"{case}.npz", probabilities=p.transpose(0, 3, 2, 1)
                    )
                    write_label_map(
                        place / f"{case}.nii.gz", p.argmax(0).astype(np.uint8), like.header
                    )
    write_dataset_json(folder / "trainer", labels={"background": 0, "rv": 1, "myo": 2, "lv": 3})
    return folder


def ece(labels: Path, folder: Path) -> float:
    statistics = fastcal.CalibrationStatistics(4)
    predictions = PredictionFolder(folder)
    for case in predictions.cases():
        target, _ = read_labels(labels / f"{case}.nii.gz")
        statistics.update(predictions.probabilities(case).data[None], target[None])
    return statistics.ece()


def test_cross_validation_folders_are_fitted_and_applied(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, labels = tmp_path / "calibrator.json", cohort / "data/labelsTr"
    fit = ["recalibrate", "fit", "-i", str(cohort / "trainer"), "-g", str(labels), "-o", str(out)]
    assert main(fit) == 0
    printed = capsys.readouterr().out
    fitted = load(out)
    assert isinstance(fitted, TemperatureScaling)
    assert f"T {fitted.temperature_:.4f}" in printed
    assert "fitted to 4 cases" in printed
    assert "4 folds of the cases" in printed  # five are the default, one per case the most

    folders = [PredictionFolder(cohort / f"trainer/fold_{k}/validation") for k in (0, 1)]
    stacked = {case: f.probabilities(case).data for f in folders for case in f.cases()}
    targets = {case: read_labels(labels / f"{case}.nii.gz")[0] for case in stacked}
    at_once = TemperatureScaling(from_logits=False).fit(
        np.stack(list(stacked.values())), np.stack([targets[case] for case in stacked])
    )
    assert fitted.temperature_ == pytest.approx(at_once.temperature_, rel=1e-9)

    source, made = cohort / "members/Ts/0", tmp_path / "made"
    truth = cohort / "data/labelsTs"
    apply = ["recalibrate", "apply", "-c", str(out), "-i", str(source), "-o", str(made), "-q"]
    assert (
        main([*apply, "--save-probabilities", "--maps", "entropy", "mean", "-g", str(truth)]) == 0
    )
    (case,) = PredictionFolder(source).cases()
    expected = fitted.transform(PredictionFolder(source).probabilities(case).data[None])[0]
    written = PredictionFolder(made).probabilities(case).data
    np.testing.assert_allclose(written, expected, atol=1e-6)
    mean = np.asarray(nib.load(made / f"mean/{case}.nii.gz").dataobj)
    np.testing.assert_allclose(np.moveaxis(mean, -1, 0), written, atol=1e-6)
    np.testing.assert_array_equal(
        nib.load(made / f"{case}.nii.gz").affine, nib.load(source / f"{case}.nii.gz").affine
    )
    summary = json.loads((made / "calibration.json").read_text())
    assert summary["pooled"]["ECE"] == pytest.approx(ece(truth, made), abs=1e-6)
    assert ece(truth, made) < 0.5 * ece(truth, source)

    assert summary["settings"]["n_bins"] == 15
    assert summary["cases"] == [case]
    assert fitted.fitted_to_ is not None
    assert set(fitted.fitted_to_.cases) == set(stacked)
    assert fitted.fitted_to_.version == fastcal.__version__
    again = fit_folders([cohort / "trainer"], labels, out, folds=0).calibrator
    assert isinstance(again, TemperatureScaling)
    assert f"T          {again.temperature_:.4g}" in repr(again)
    assert f"fitted to  4 cases, {again.n_voxels_:,} voxels" in repr(again)
    assert repr(load(out)).endswith("fitted to  4 cases")
    assert "was fitted to these predictions" not in capsys.readouterr().err
    (seen, *_) = stacked
    with pytest.warns(DataWarning, match=f"was fitted to these predictions of case {seen}: its"):
        apply_folders(out, [cohort / "trainer"], tmp_path / "seen", cases=[seen])

    before = files_in(made)
    assert (
        main([*apply, "--save-probabilities", "--maps", "entropy", "mean", "-g", str(truth)]) == 0
    )
    assert "Up to date: 1 case in " in capsys.readouterr().out
    assert files_in(made) == before

    counted = ["--fine-bins", "64", "--region", "box:2:1", "-g", str(truth), "--overwrite"]
    assert main([*apply, "--save-probabilities", *counted]) == 0
    printed = capsys.readouterr().out
    assert "region box:2:1" in printed
    found = json.loads((made / "calibration.json").read_text())
    again = evaluate_folder(
        truth, made, tmp_path / "again.json", fine_bins=64, regions=["box:2:1"]
    )["calibration"]
    for name, values in (
        ("whole", (found["pooled"], again["pooled"])),
        ("region", (found["regions"]["pooled"]["box:2:1"], again["regions"]["pooled"]["box:2:1"])),
    ):
        here, there = values
        assert here["n_voxels"] == there["n_voxels"], name
        assert here["AUROC"] == pytest.approx(there["AUROC"], abs=1e-5), name
        assert f"{here['AUROC']:.4f}" in printed, name


@pytest.mark.parametrize("order", ["pool-then-calibrate", "member-then-pool"])
def test_members_folders_are_fitted_and_applied(cohort: Path, tmp_path: Path, order: str) -> None:
    out, made = tmp_path / "calibrator.json", tmp_path / "made"
    train = [str(cohort / f"members/Tr/{k}") for k in range(3)]
    test = [cohort / f"members/Ts/{k}" for k in range(3)]
    labels = ["-g", str(cohort / "data/labelsTr")]
    assert (
        main(["recalibrate", "fit", "-i", *train, *labels, "-o", str(out), "--ensemble", order])
        == 0
    )
    apply = ["recalibrate", "apply", "-c", str(out), "-i", *map(str, test), "-o", str(made), "-q"]
    assert main([*apply, "--save-probabilities"]) == 0
    ensemble = load(out)
    assert isinstance(ensemble, EnsembleCalibration)
    (case,) = PredictionFolder(test[0]).cases()
    members = [PredictionFolder(one).probabilities(case).data[None] for one in test]
    np.testing.assert_allclose(
        PredictionFolder(made).probabilities(case).data, ensemble.transform(members)[0], atol=1e-6
    )
    plain = fastcal.CalibrationStatistics(4)
    target, _ = read_labels(cohort / f"data/labelsTs/{case}.nii.gz")
    plain.update(fastcal.ensemble_mean(members, from_logits=False), target[None])
    if order == "pool-then-calibrate":
        assert ece(cohort / "data/labelsTs", made) < 0.5 * plain.ece()
    variance = [*apply[:-2], str(tmp_path / "more"), "-q", "--maps", "variance"]
    assert main(variance) == (0 if order == "member-then-pool" else 2)


def test_folds_of_a_cross_validation_can_be_members_with_calibrators_of_their_own(
    cohort: Path, tmp_path: Path
) -> None:
    folds = [cohort / f"trainer/fold_{k}/validation" for k in (0, 1)]
    labels = cohort / "data/labelsTr"
    both = fit_folders(folds, labels, tmp_path / "both.json", ensemble="member-then-pool")
    for fold, one in zip(folds, both.calibrators, strict=True):
        alone = fit_folders([fold], labels, tmp_path / "alone.json").calibrators[0]
        assert isinstance(one, TemperatureScaling)
        assert isinstance(alone, TemperatureScaling)
        assert one.temperature_ == alone.temperature_


def test_member_with_nan_is_named(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled, out = tmp_path / "spoiled", tmp_path / "calibrator.json"
    healthy = cohort / "members/Ts/0"
    (case,) = PredictionFolder(healthy).cases()
    values = PredictionFolder(healthy).probabilities(case).data.copy()
    values[:, 3, 4, 2] = np.nan
    spoiled.mkdir()
    shutil.copy(healthy / f"{case}.nii.gz", spoiled)
    np.savez_compressed(spoiled / f"{case}.npz", probabilities=values.transpose(0, 3, 2, 1))
    labels = ["-g", str(cohort / "data/labelsTs"), "-q"]
    fit = ["recalibrate", "fit", *labels, "-o", str(out), "--ensemble", "pool-then-calibrate"]
    made = ["-o", str(tmp_path / "made"), "-q"]
    assert main([*fit, "-i", str(healthy), str(cohort / "members/Ts/1")]) == 0
    apply = ["recalibrate", "apply", "-c", str(out), *made]
    for command in ([*fit, "-i"], [*apply, "-i"]):
        capsys.readouterr()
        assert main([*command, str(healthy), str(spoiled)]) == 2
        *told, line = capsys.readouterr().err.splitlines()
        assert line.startswith(f"fastcal: {spoiled / case}.npz: 1 voxels without valid values")
        # The healthy member was part of the fit.
        assert len(told) == (0 if command[1] == "fit" else 1)


@pytest.mark.filterwarnings("ignore:.*was fitted to these predictions")
def test_case_that_a_member_lacks_is_listed_with_keep_going(cohort: Path, tmp_path: Path) -> None:
    train, labels = [cohort / f"members/Tr/{k}" for k in range(2)], cohort / "data/labelsTr"
    fitted = fit_folders(train, labels, tmp_path / "c.json", ensemble="member-then-pool").calibrator
    fewer = tmp_path / "fewer"
    shutil.copytree(train[1], fewer)
    missing, *others = PredictionFolder(fewer).cases()
    (fewer / f"{missing}.npz").unlink()
    with pytest.raises(DataError, match=f"fewer: no probabilities of case {missing}"):
        apply_folders(fitted, [train[0], fewer], tmp_path / "stopped")
    made = apply_folders(fitted, [train[0], fewer], tmp_path / "made", keep_going=True)
    assert made.done == tuple(others)
    assert [one.case for one in made.failed] == [missing]
    with pytest.raises(ValueError, match="folders must be the 2 members of the ensemble, got 3"):
        apply_folders(fitted, [*train, fewer], tmp_path / "made")


@pytest.mark.parametrize(("method", "most"), [("temperature", 5), ("vector", 6), ("isotonic", 1)])
def test_every_pass_over_the_cases_is_reported(
    method: str, most: int, cohort: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = ["-g", str(cohort / "data/labelsTr"), "-o", str(tmp_path / "calibrator.json")]
    fit = ["recalibrate", "fit", "-i", str(cohort / "trainer"), *labels, "--method", method]
    assert main(fit) == 0
    lines = capsys.readouterr().err.splitlines()
    files = (cohort / "data/labelsTr").iterdir()
    cases = sorted(path.name.removesuffix(".nii.gz") for path in files)
    total = len(cases)
    expected = [f"{number}/{total} {case}" for number, case in enumerate(cases, start=1)]
    told = [re.fullmatch(r"(.*): (\d+/\d+ .*), \d+:\d\d left in this pass", line) for line in lines]
    steps: dict[str, list[str]] = {}
    for one in told:
        assert one is not None
        steps.setdefault(one[1], []).append(one[2])
    fitted = {step: shown for step, shown in steps.items() if not step.startswith("fold ")}
    assert list(fitted.values()) == [expected] * len(fitted)
    assert list(fitted) == [f"pass {k + 1}" for k in range(len(fitted))]
    assert 1 <= len(fitted) <= most
    folds = min(5, total)
    assert {f"fold {k + 1} of {folds}, scores, pass 1" for k in range(folds)} < set(steps)
    assert main([*fit, "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("method", METHODS)
def test_held_out_scores_are_those_of_fits_without_the_fold(
    method: str, cohort: Path, tmp_path: Path
) -> None:
    fit = fit_folders(
        [cohort / "trainer"],
        cohort / "data/labelsTr",
        tmp_path / "out.json",
        method=method,
        folds=2,
    )
    (scores,) = fit.held_out
    before, after = fastcal.CalibrationStatistics(4), fastcal.CalibrationStatistics(4)
    for fold in (0, 1):
        train = [case for number, case in enumerate(fit.cases) if number % 2 != fold]
        other = fit_folders(
            [cohort / "trainer"],
            cohort / "data/labelsTr",
            tmp_path / "other.json",
            method=method,
            cases=train,
            folds=0,
        )
        assert other.held_out == ()
        calibrator = load(other.out)
        for place in (cohort / f"trainer/fold_{k}/validation" for k in (0, 1)):
            predictions = PredictionFolder(place)
            for case in set(predictions.cases()) - set(train):
                values = torch.as_tensor(np.array(predictions.probabilities(case).data))[None]
                target = read_labels(cohort / f"data/labelsTr/{case}.nii.gz")[0][None]
                before.update(values, target)
                after.update(calibrator.transform(values), target)
    for ours, expected in ((scores.before, before), (scores.after, after)):
        assert ours.n_voxels == expected.n_voxels
        assert ours.nll() == pytest.approx(expected.nll(), rel=1e-6)
        assert ours.brier() == pytest.approx(expected.brier(), rel=1e-6)
    assert scores.after.nll() < scores.before.nll()


def test_one_case_has_no_held_out_scores(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = cohort / "data/labelsTr"
    case = sorted(path.name.removesuffix(".nii.gz") for path in labels.iterdir())[0]
    fit = ["recalibrate", "fit", "-i", str(cohort / "trainer"), "-g", str(labels), "-q"]
    assert main([*fit, "-o", str(tmp_path / "one.json"), "--cases", case]) == 0
    assert "not scored on held-out folds" in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_files(method: str, cohort: Path, tmp_path: Path) -> None:
    out, made = tmp_path / "calibrator.json", tmp_path / "made"
    source = str(cohort / "trainer")
    labels = cohort / "data/labelsTr"
    assert (
        main(
            [
                "recalibrate",
                "fit",
                "-i",
                source,
                "-g",
                str(labels),
                "-o",
                str(out),
                "--method",
                method,
            ]
        )
        == 0
    )
    apply = ["recalibrate", "apply", "-c", str(out), "-i", source, "-o", str(made), "-q"]
    assert main([*apply, "--save-probabilities"]) == 0
    assert ece(labels, made) < 0.5 * ece(labels, cohort / "members/Tr/0")


def test_ignore_label_and_regions_of_the_dataset_are_honoured(tmp_path: Path) -> None:
    folders, labels, drawn, _ = write_cohort(tmp_path, members=1, cases=["case_a"])
    rng = np.random.default_rng(5)
    marked = random_labels(rng)
    marked[:3] = 3
    write_label_map(labels / "case_a.nii.gz", marked)
    write_dataset_json(
        tmp_path, labels={"background": 0, "anterior": 1, "posterior": 2, "ignore": 3}
    )
    fit = fit_folders(folders, labels, tmp_path / "c.json", method="vector")
    expected = VectorScaling(from_logits=False).fit(
        drawn["case_a"][0][None, :, 3:], marked[None, 3:].astype(np.int64)
    )
    (vector,) = fit.calibrators
    assert isinstance(vector, VectorScaling)
    np.testing.assert_allclose(vector.weight_, expected.weight_, atol=1e-7)
    np.testing.assert_allclose(vector.bias_, expected.bias_, atol=1e-7)

    regions = tmp_path / "regions"
    values = rng.random((2, *marked.shape)).astype(np.float32)
    marked[:3] = 0
    write_label_map(regions / "labels/case_a.nii.gz", marked)
    write_member(regions / "fold_0", {"case_a": values})
    write_dataset_json(
        regions,
        labels={"background": 0, "whole": [1, 2], "core": 2},
        regions_class_order=[1, 2],
    )
    fit = fit_folders([regions / "fold_0"], regions / "labels", regions / "c.json")
    target = np.stack([marked > 0, marked == 2]).astype(np.int64)
    alone = TemperatureScaling(from_logits=False, multilabel=True).fit(values[None], target[None])
    (one,) = fit.calibrators
    assert isinstance(one, TemperatureScaling)
    assert one.multilabel
    assert one.temperature_ == pytest.approx(alone.temperature_, rel=1e-9)


def test_bad_input_is_one_line(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, labels = str(tmp_path / "nowhere"), str(cohort / "data/labelsTr")
    trainer, out = str(cohort / "trainer"), str(tmp_path / "calibrator.json")
    members = [str(cohort / f"members/Tr/{k}") for k in range(2)]
    fit = ["recalibrate", "fit", "-o", out]
    assert main(["recalibrate", "fit", "-i", trainer, "-g", labels, "-o", out]) == 0
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "case.npz").write_bytes(b"PK")
    empty = tmp_path / "empty"
    empty.mkdir()
    capsys.readouterr()
    made = ["-o", str(tmp_path / "made"), "-q"]
    for arguments, named in (
        ([*fit, "-i", missing, "-g", labels], missing),
        ([*fit, "-i", str(empty), "-g", labels], str(empty)),
        ([*fit, "-i", trainer, "-g", missing], missing),
        ([*fit, "-i", trainer, "-g", str(cohort / "data/labelsTs")], str(cohort / "data/labelsTs")),
        ([*fit, "-i", *members, "-g", labels], "ensemble"),
        ([*fit, "-i", str(damaged), "-g", labels], str(damaged / "case.npz")),
        ([*fit, "-i", trainer, "-g", labels, "--from-logits", "--method", "none"], "--method"),
        ([*fit, "-i", trainer, "-g", labels, "--weights", "1"], "weights"),
        ([*fit, "-i", trainer, "-g", labels, "--cases", "other"], "other"),
        (["recalibrate", "apply", "-c", missing, "-i", trainer, *made], missing),
        (["recalibrate", "apply", "-c", trainer, "-i", trainer, *made], trainer),
        (["recalibrate", "apply", "-c", out, "-i", missing, *made], missing),
        (
            ["recalibrate", "apply", "-c", out, "-i", trainer, *made, "--maps", "variance"],
            "variance",
        ),
    ):
        assert main(arguments) == 2, arguments
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert named in lines[0]
    assert not (tmp_path / "made").exists()


def test_commands_and_options_are_explained_and_on_their_pages() -> None:
    import typer

    from fastcal.cli.app import app

    group: Any = typer.main.get_command(app)
    commands = group.commands["recalibrate"].commands
    assert list(commands) == ["fit", "apply"]
    page = (ROOT / "docs/cli.md").read_text()
    section = page.split("## fastcal recalibrate\n")[1].split("\n## ")[0]
    parts = dict(zip(("fit", "apply"), section.split("### ")[1:], strict=True))
    for name, command in commands.items():
        for parameter in command.params:
            assert parameter.help.endswith((".", "]")), parameter.name
            assert f"`{parameter.opts[-1]}`" in parts[name], parameter.opts[-1]
    text = page + (ROOT / "docs/recalibration.md").read_text()
    lines = re.findall(r"^fastcal recalibrate (\w+) (.+)$", text, re.MULTILINE)
    assert lines
    for name, words in lines:
        known = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert {word for word in words.split() if word.startswith("-")} <= known
