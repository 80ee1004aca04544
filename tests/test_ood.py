"""Out-of-distribution detection: thresholds, distances, measures, folders and commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cohort import CASES, write_images, write_nifti, write_run
from segment_tables import table, write_folder
from sklearn import metrics

from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.data.dataset import image_cases
from fastcal.models import UNet, load_member, sliding_window
from fastcal.models.features import bottleneck_features
from fastcal.models.run import Run
from fastcal.ood import (
    SCORES,
    CaseFolder,
    OODDetector,
    evaluate_ood,
    fit_ood,
    intensity_histogram,
    load,
    ood_measures,
    predict_ood,
    unlike_end,
)


def run(*words: object) -> int:
    return main([str(word) for word in words])


# --- detectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_a_case_like_the_training_is_flagged_at_most_at_the_wanted_rate(rate: float) -> None:
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(300):
        values = rng.gamma(2.0, size=40 + 50)
        detector = OODDetector("entropy", false_positive_rate=rate).fit(values[:40])
        flagged.append(detector.predict(values[40:]).mean())
    rank = math.ceil((1 - rate) * 41 - 1e-9)
    expected = 1 - rank / 41
    assert np.mean(flagged) == pytest.approx(expected, abs=4 * np.std(flagged) / 300**0.5)
    assert expected <= rate


def test_scores_that_are_low_where_unlike_are_flagged_below_their_threshold() -> None:
    agreement = np.array([0.9, 0.8, 0.95])
    detector = OODDetector("pairwise_dice", false_positive_rate=0.25).fit(agreement)
    assert detector.threshold_ == 0.8
    assert detector.predict([0.79, 0.81]).tolist() == [True, False]
    assert unlike_end("pairwise_dice") == "low"


def test_a_case_without_any_structure_is_the_most_unlike() -> None:
    detector = OODDetector("entropy", false_positive_rate=0.25).fit([0.1, 0.2, 0.3])
    verdict = detector.judge([np.nan, 0.25])
    assert verdict.flagged.tolist() == [True, False]
    assert verdict.p_value.tolist() == [1 / 4, 2 / 4]
    assert detector.unlikeness([np.nan])[0] == np.inf


def test_volumes_have_no_direction_and_are_no_detectors() -> None:
    assert "volume" not in SCORES
    with pytest.raises(ValueError, match="score must be 'binary_entropy'"):
        OODDetector("volume")


def test_empirical_distances_are_those_of_the_inverse_covariance() -> None:
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(4, 4))
    train, test = rng.normal(size=(60, 4)) @ mix + 5, rng.normal(size=(3, 4)) + 2
    detector = OODDetector("mahalanobis", covariance="empirical").fit(train)
    inverse = np.linalg.inv(np.cov(train.T, bias=True))
    off = test - train.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", off, inverse, off))
    np.testing.assert_allclose(detector.scores(test), expected)


def test_distances_of_several_networks_are_averaged() -> None:
    rng = np.random.default_rng(2)
    train, test = rng.normal(size=(40, 3, 5)), rng.normal(size=(4, 3, 5))
    together = OODDetector("mahalanobis").fit(train).scores(test)
    each = [OODDetector("mahalanobis").fit(train[:, m]).scores(test[:, m]) for m in range(3)]
    np.testing.assert_allclose(together, np.mean(each, axis=0))


def test_the_threshold_of_distances_is_that_of_cases_the_covariance_has_not_seen() -> None:
    """With half as many features as cases, distances of seen cases would flag every other."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(60 + 400, 30))
    detector = OODDetector("mahalanobis", false_positive_rate=0.1, covariance="empirical").fit(
        values[:60]
    )
    assert detector.predict(values[60:]).mean() < 0.2
    seen = detector.scores(values[:60])
    assert (detector.scores(values[60:]) > np.sort(seen)[54]).mean() > 0.5


def test_an_empirical_covariance_without_an_inverse_is_refused() -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(ValueError, match="covariance must be 'ledoit-wolf' for 24 cases of 30"):
        OODDetector("histogram", covariance="empirical").fit(rng.normal(size=(24, 30)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OODDetector("energy"), "score must be 'binary_entropy'"),
        (lambda: OODDetector(covariance="robust"), "covariance must be 'ledoit-wolf' or"),
        (
            lambda: OODDetector(false_positive_rate=0),
            "false_positive_rate must lie between 0 and 1, got 0",
        ),
        (
            lambda: OODDetector().fit([0.1] * 18),
            "values must be of at least 19 cases for a false-positive rate of 0.05, got 18",
        ),
        (
            lambda: OODDetector().fit([np.nan] * 20),
            "values must hold scores, got NaN for all 20 cases",
        ),
        (lambda: OODDetector().fit(np.zeros((20, 2))), r"values must be numbers \[n\] for"),
        (lambda: OODDetector("histogram").fit(np.zeros(20)), r"values must be numbers \[n, F\] or"),
        (lambda: OODDetector().fit([np.inf] * 20), "values must be finite or NaN, got infinity"),
        (
            lambda: OODDetector("histogram").fit(np.full((20, 2), np.nan)),
            "values must be finite features, got NaN",
        ),
        (lambda: OODDetector().predict([0.1]), "not fitted yet: call fit first"),
        (
            lambda: OODDetector("histogram").fit(np.eye(20)).predict(np.zeros((1, 3))),
            "values must be of 1 networks with 20 features, as in the fit, got 1 networks with 3",
        ),
    ],
)
def test_what_a_detector_cannot_take_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- measures -------------------------------------------------------------------------------------


def test_measures_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random(50) < 0.4
    score = np.round(truth + rng.normal(0, 0.8, 50), 1)
    flagged = score > 0.7
    found = ood_measures(score, truth, flagged=flagged, n_resamples=20)
    assert found["auroc"].value == pytest.approx(metrics.roc_auc_score(truth, score))
    assert found["aupr"].value == pytest.approx(metrics.average_precision_score(truth, score))
    false, true, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
    assert found["fpr95"].value == pytest.approx(false[true >= 0.95][0])
    assert found["false_positives"].value == pytest.approx(flagged[~truth].mean())
    assert found["true_positives"].value == pytest.approx(flagged[truth].mean())


@pytest.mark.parametrize(
    ("truth", "reason"),
    [([True, True], "every case is out of distribution"), ([False, False], "every case is in")],
)
def test_one_class_alone_has_no_auroc_and_says_why(truth: list[bool], reason: str) -> None:
    found = ood_measures([0.1, 0.2], truth, flagged=[True, False])
    assert math.isnan(found["auroc"].value)
    assert (found["auroc"].reason or "").startswith(reason)
    share = found["true_positives" if truth[0] else "false_positives"]
    assert share.value == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unlikeness": [0.1, np.nan]}, "unlikeness must be numbers along one axis without NaN"),
        ({"is_ood": [1, 0]}, "is_ood must be True or False for each case"),
        ({"is_ood": [True]}, "is_ood must have the shape of unlikeness"),
        ({"level": 0.0}, "level must lie between 0 and 1, got 0"),
    ],
)
def test_measures_refuse_what_does_not_fit(given: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ood_measures(**({"unlikeness": [0.1, 0.2], "is_ood": [True, False]} | given))


# --- images and features --------------------------------------------------------------------------


def test_histograms_do_not_depend_on_gain_and_offset_but_on_contrast() -> None:
    rng = np.random.default_rng(6)
    image = rng.gamma(2.0, size=(2, 8, 9, 7))
    found = intensity_histogram(image, n_bins=8)
    assert found.shape == (16,)
    assert found[:8].sum() == pytest.approx(1)
    np.testing.assert_allclose(intensity_histogram(40 * image + 7, n_bins=8), found)
    assert np.abs(intensity_histogram(image**2, n_bins=8) - found).max() > 0.1
    constant = intensity_histogram(np.ones((1, 3, 3)), n_bins=4)
    assert constant.tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("patch", [None, (8, 8)])
def test_features_are_the_mean_of_the_deepest_blocks_output(patch) -> None:
    torch.manual_seed(0)
    network = UNet(1, 2, widths=(2, 4, 6)).eval()
    images = torch.randn(3, 1, 8, 8)
    kept = []
    block = network.encoder[-1]
    block.register_forward_hook(lambda *args: kept.append(args[2]))
    sliding_window(network, images, patch=None)
    expected = torch.cat(kept).double().mean((0, 2, 3))
    n_hooks = len(block._forward_hooks)
    found = bottleneck_features(network, images, patch=patch, batch_size=2)
    torch.testing.assert_close(found, expected)
    assert len(block._forward_hooks) == n_hooks


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """Scores of thirty cases."""
    return write_folder(tmp_path / "inside", table(30))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Scores of twenty cases whose segments are more uncertain, one without any."""
    made = table(20, seed=7)
    scores = dict(made.scores)
    scores["binary_entropy"] = scores["binary_entropy"] + 0.35
    scores["volume"] = scores["volume"].copy()
    scores["volume"][:2] = 0.0
    return write_folder(tmp_path / "outside", replace(made, scores=scores))


def test_the_scores_of_a_case_are_the_mean_over_its_structures(
    inside: Path, outside: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ood.json"
    fitted = fit_ood(file, predictions=inside, false_positive_rate=0.1)
    assert list(fitted.by_score) == ["binary_entropy", "pairwise_dice"]
    made = table(30)
    expected = made.scores["binary_entropy"].reshape(30, 2).mean(1)
    np.testing.assert_allclose(fitted.by_score["binary_entropy"].training_, expected)
    one = fit_ood(file, predictions=inside, false_positive_rate=0.1, structures=["posterior"])
    own = made.of("posterior").scores["binary_entropy"]
    np.testing.assert_allclose(one.by_score["binary_entropy"].training_, own)
    read = load(file)
    assert read.structures == ("posterior",)
    assert read.by_score["binary_entropy"].threshold_ == one.by_score["binary_entropy"].threshold_

    rows = predict_ood(fitted, tmp_path / "out", predictions=outside)
    assert rows[0].case == "case_000"
    assert math.isnan(rows[0].scores["binary_entropy"])
    assert rows[0].flagged == ("binary_entropy", "pairwise_dice")
    assert [len(row.flagged) for row in rows] == sorted(
        (len(row.flagged) for row in rows), reverse=True
    )
    content = json.loads((tmp_path / "out" / "ood.json").read_text())
    assert [one["case"] for one in content["cases"]] == [row.case for row in rows]
    assert (tmp_path / "out" / "ood.csv").read_text().startswith("case,flagged,binary_entropy,")


def test_two_folders_are_told_apart(inside: Path, outside: Path, tmp_path: Path) -> None:
    fitted = fit_ood(tmp_path / "ood.json", predictions=inside)
    test = write_folder(tmp_path / "test", table(25, seed=3))
    found = evaluate_ood(
        fitted, CaseFolder(test), CaseFolder(outside), tmp_path / "out", n_resamples=50
    )
    assert found["binary_entropy"]["auroc"].value > 0.95
    assert found["pairwise_dice"]["auroc"].value < 0.75
    content = json.loads((tmp_path / "out" / "ood_scores.json").read_text())
    assert (content["n_inside"], content["n_outside"]) == (25, 20)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of 24 cases, and a run of two untrained networks."""
    write_run(tmp_path / "run")
    rng = np.random.default_rng(8)
    for k in range(24):
        write_nifti(
            tmp_path / "images" / f"case_{k:03d}_0000.nii.gz",
            rng.normal(100, 20, (7, 6, 5)).astype(np.float32),
        )
    return tmp_path / "images"


def test_features_of_a_runs_networks_are_those_of_what_they_see(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, model = tmp_path / "ood.json", ("-m", tmp_path / "run")
    assert run("ood", "fit", "--images", images, *model, "-o", file, "-q") == 0
    fitted = load(file)
    assert list(fitted.by_score) == ["histogram", "mahalanobis"]
    opened = Run.open(tmp_path / "run")
    case = image_cases(images)[3]
    image, _, like = case.load()
    seen = opened.preprocessing.apply(image, like)
    expected = [bottleneck_features(load_member(member), seen).numpy() for member in opened.members]
    found = fitted.by_score["mahalanobis"].training_
    assert found.shape == (24, 2, 8)
    np.testing.assert_allclose(found[3], expected, rtol=1e-5)

    other = tmp_path / "other"
    write_images(other)
    assert run("ood", "predict", "-c", file, "--images", other, *model, "-q") == 0
    printed = capsys.readouterr().out
    assert all(case in printed for case in CASES)
    with pytest.raises(DataError, match="networks must be those that the detector was fitted with"):
        predict_ood(file, images=other, run=tmp_path / "run", members=[1])


def test_bad_input_of_the_commands_is_one_line(
    inside: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ood.json"
    fit = ("ood", "fit", "-o", file, "-q")
    few = write_folder(tmp_path / "few", table(5))
    plain = write_folder(tmp_path / "plain", replace(table(30), scores={"volume": np.ones(60)}))
    (tmp_path / "bad.json").write_text('{"format": "fastcal recalibration"}')
    assert run(*fit, "-i", inside) == 0
    capsys.readouterr()
    for words, line in [
        (fit, "predictions must be given or else images, got neither"),
        ((*fit, "-i", few), f"{few}: binary_entropy: values must be of at least 19 cases"),
        ((*fit, "-i", plain), f"{plain}: has none of the scores binary_entropy, "),
        ((*fit, "-i", inside, "--scores", "energy"), "score must be 'binary_entropy', "),
        ((*fit, "-i", inside, "--scores", "entropy"), "scores must be among binary_entropy, "),
        ((*fit, "-i", inside, "--fpr", 0), "false_positive_rate must lie between 0 and 1, got 0"),
        ((*fit, "-i", inside, "--structures", "liver"), "structures must be among anterior, "),
        ((*fit, "-i", inside, "--scores", "histogram"), "images must be given for histogram"),
        ((*fit, "--images", images, "--scores", "mahalanobis"), "networks must be given for"),
        ((*fit, "--images", images, "-m", inside), "config.json: no such file"),
        ((*fit, "--images", images, "--bins", 1), "--bins must be from 2 to 65536, got 1"),
        (("ood", "predict", "-c", file, "--images", images), "predictions must be given for"),
        (("ood", "predict", "-c", tmp_path / "bad.json", "-i", inside), "bad.json: "),
        (("ood", "evaluate", "-c", file, "-i", inside), "--ood or --ood-images must name"),
    ]:
        assert run(*words) == 2, words
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1, printed
        assert line in printed, (words, printed)


def test_a_damaged_file_of_detectors_is_one_line(inside: Path, tmp_path: Path) -> None:
    file = tmp_path / "ood.json"
    fit_ood(file, predictions=inside)
    content = json.loads(file.read_text())
    for change, message in [
        ({"detectors": []}, "detectors must hold at least one, got none"),
        ({"n_bins": 1}, "n_bins must be from 2 to 65536, got 1"),
        ({"version": 3}, "version must be 1, got 3"),
        (
            {"detectors": [content["detectors"][0] | {"values": [0.1]}]},
            "values must be of at least 19 cases",
        ),
        (
            {"detectors": [content["detectors"][0] | {"score": "histogram"}]},
            "not a file of fastcal ood detectors",
        ),
        (
            {"detectors": [content["detectors"][0] | {"values": [[[0.1]], [[0.1, 0.2]]]}]},
            "not a file of fastcal ood detectors",
        ),
    ]:
        file.write_text(json.dumps(content | change))
        with pytest.raises(DataError, match=message) as caught:
            load(file)
        assert str(caught.value).startswith(str(file))
