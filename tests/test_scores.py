"""Measures of scores against sums over all pairs, thresholds and orders; tables from folders."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from cohort import write_cohort
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from fastcal.core.errors import DataError
from fastcal.evaluate import evaluate_folder
from fastcal.scores import (
    MEASURES,
    SEGMENT_SCORES,
    Draws,
    ScoreTable,
    mean_absolute_error,
    read_scored,
    read_table,
    score_measures,
)
from fastcal.scores.cells import Order

Samples = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.4, 0.8]), st.sampled_from([0.0, 0.3, 0.6, 0.95])),
    min_size=3,
    max_size=9,
)


def value(name: str, unsure: np.ndarray, dice: np.ndarray, threshold: float = 0.5) -> float:
    found = score_measures(unsure, dice, failure_dice=threshold, measures=[name], n_resamples=1)
    return found[name].value


def split(samples: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    unsure, dice = np.array(samples).T
    return unsure, dice


# --- measures -------------------------------------------------------------------------------------


@given(Samples)
def test_aurc_is_the_mean_over_the_orders_that_ties_could_have(samples) -> None:
    samples = samples[:6]
    areas = []
    for order in itertools.permutations(samples):
        unsure, dice = split(list(order))
        if (np.diff(unsure) < 0).any():
            continue  # not an order by uncertainty
        risk = np.cumsum(1 - dice) / np.arange(1, len(dice) + 1)
        areas.append(risk.mean())
    assert value("aurc", *split(samples)) == pytest.approx(np.mean(areas), abs=1e-12)


@given(Samples)
def test_excess_aurc_is_measured_from_the_order_by_dice(samples) -> None:
    unsure, dice = split(samples)
    best = np.cumsum(np.sort(1 - dice)) / np.arange(1, len(dice) + 1)
    expected = value("aurc", unsure, dice) - best.mean()
    assert value("e_aurc", unsure, dice) == pytest.approx(expected, abs=1e-12)
    assert value("e_aurc", -dice, dice) == pytest.approx(0.0, abs=1e-12)


@given(Samples)
def test_augrc_is_the_trapezoid_under_the_joint_risk_by_coverage(samples) -> None:
    unsure, dice = split(samples)
    coverage, risk = [0.0], [0.0]
    for threshold in np.unique(unsure):
        kept = unsure <= threshold
        coverage.append(kept.mean())
        risk.append((1 - dice)[kept].sum() / len(dice))
    area = np.trapezoid(risk, coverage)
    assert value("augrc", unsure, dice) == pytest.approx(area, abs=1e-12)


@given(Samples)
def test_augrc_of_failures_follows_from_auroc_and_their_rate(samples) -> None:
    """Traub et al., NeurIPS 2024, equation 6."""
    unsure, dice = split(samples)
    right = (dice > 0.5).astype(float)
    accuracy = right.mean()
    if accuracy in (0.0, 1.0):
        return
    auroc = metrics.roc_auc_score(1 - right, unsure)
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert value("augrc", unsure, right) == pytest.approx(expected, abs=1e-12)


@given(Samples)
def test_detection_of_failures_agrees_with_scikit_learn(samples) -> None:
    unsure, dice = split(samples)
    failed = dice < 0.5
    found = score_measures(unsure, dice, failure_dice=0.5, n_resamples=1)
    if failed.all() or not failed.any():
        for name in ("auroc", "aupr", "fpr95"):
            assert math.isnan(found[name].value)
            assert "a Dice below 0.5" in (found[name].reason or "")
        return
    assert found["auroc"].value == pytest.approx(metrics.roc_auc_score(failed, unsure))
    assert found["aupr"].value == pytest.approx(metrics.average_precision_score(failed, unsure))
    false, true, _ = metrics.roc_curve(failed, unsure, drop_intermediate=False)
    assert found["fpr95"].value == pytest.approx(false[true >= 0.95][0])
    assert found["failure_rate"].value == pytest.approx(failed.mean())


@given(Samples)
def test_correlations_agree_with_scipy(samples) -> None:
    unsure, dice = split(samples)
    found = score_measures(unsure, dice, n_resamples=1)
    if np.ptp(unsure) == 0 or np.ptp(dice) == 0:
        assert found["pearson"].reason in (
            "every structure has the same score",
            "every structure has the same Dice",
        )
        return
    assert found["pearson"].value == pytest.approx(stats.pearsonr(unsure, dice)[0])
    assert found["spearman"].value == pytest.approx(stats.spearmanr(unsure, dice)[0])


def test_a_random_order_has_the_mean_risk_and_half_of_it() -> None:
    dice = np.array([0.9, 0.2, 0.7])
    assert value("aurc", np.zeros(3), dice) == pytest.approx(0.4)
    assert value("augrc", np.zeros(3), dice) == pytest.approx(0.2)
    assert value("auroc", np.zeros(3), dice) == pytest.approx(0.5)


def test_a_score_that_is_low_where_unsure_is_turned() -> None:
    score, dice = np.array([0.9, 0.5, 0.1]), np.array([0.8, 0.6, 0.2])
    turned = score_measures(score, dice, unsure="low", n_resamples=5)
    same = score_measures(-score, dice, unsure="high", n_resamples=5)
    assert turned == same


def test_rows_without_score_or_dice_are_left_out() -> None:
    found = score_measures([0.1, np.nan, 0.3, 0.2], [0.9, 0.5, np.nan, 0.3], n_resamples=5)
    assert found == score_measures([0.1, 0.2], [0.9, 0.3], cases=["0", "3"], n_resamples=5)
    (aurc,) = score_measures(
        [0.1, 0.2, np.nan], [0.9, 0.3, 0.5], cases=["a", "a", "b"], measures=["aurc"]
    ).values()
    assert (aurc.to_json()["n"], aurc.to_json()["n_cases"]) == (2, 1)
    none = score_measures([np.nan], [0.5])
    assert {one.reason for one in none.values()} == {
        "there are no structures with a score and a Dice"
    }


# --- intervals ------------------------------------------------------------------------------------


def test_an_interval_is_that_of_cases_drawn_with_all_their_structures() -> None:
    rng = np.random.default_rng(5)
    cases = [f"case {k // 2}" for k in range(20)]
    dice = rng.random(20)
    unsure = 1 - dice + rng.normal(0, 0.3, 20)
    seed, n = 3, 100
    found = score_measures(
        unsure, dice, cases=cases, failure_dice=0.5, seed=seed, n_resamples=n, level=0.9
    )
    draws = next(Draws(0.9, n, seed)._resampling().draws(10))
    for name, reference in {
        "auroc": lambda d, u: metrics.roc_auc_score(d < 0.5, u),
        "pearson": lambda d, u: stats.pearsonr(d, u)[0],
        "spearman": lambda d, u: stats.spearmanr(d, u)[0],
        "aupr": lambda d, u: metrics.average_precision_score(d < 0.5, u),
    }.items():
        drawn = []
        for counts in draws.astype(int):
            rows = np.repeat(np.arange(20), np.repeat(counts, 2))
            if 0 < (dice[rows] < 0.5).sum() < len(rows):
                drawn.append(reference(dice[rows], unsure[rows]))
        expected = np.quantile(drawn, [0.05, 0.95])
        assert [found[name].low, found[name].high] == pytest.approx(expected, abs=1e-9), name


def test_one_case_gives_a_value_without_an_interval() -> None:
    found = score_measures([0.1, 0.4], [0.9, 0.3], cases=["a", "a"])["aurc"]
    assert found.value == pytest.approx((0.1 + 0.4) / 2)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_mean_absolute_error_leaves_out_structures_without_a_dice() -> None:
    found = mean_absolute_error([0.5, 0.7, 0.1], [0.6, np.nan, 0.5], ["a", "b", "c"])
    assert found.value == pytest.approx(0.25)
    assert found.n_cases == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": [0.1, 0.2, 0.3]}, "dice must have the length of score, 3, got 2"),
        ({"score": ["a", "b"]}, "score must be numbers along one axis, got"),
        ({"score": [0.1, np.inf]}, "score must be finite numbers or NaN, got infinity"),
        ({"unsure": "up"}, "unsure must be 'high' or 'low', got 'up'"),
        ({"cases": ["a"]}, "cases must have the length of score, 2, got 1"),
        ({"failure_dice": 0.0}, "failure_dice must be above 0 and at most 1, got 0"),
        ({"measures": ["nll"]}, "measures must be 'pearson'"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1"),
        ({"n_resamples": 0}, "n_resamples must be from 1 to 10000000, got 0"),
    ],
)
def test_wrong_arguments_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        score_measures(**({"score": [0.1, 0.2], "dice": [0.9, 0.8]} | options))


def test_ranks_of_weighted_samples_are_those_of_repeated_ones() -> None:
    values, weights = np.array([0.3, 0.1, 0.3, 0.2]), np.array([2, 1, 0, 3])
    repeated = stats.rankdata(np.repeat(values, weights))
    ranks = Order.of(values).ranks(weights[None].astype(float))[0]
    np.testing.assert_array_equal(np.repeat(ranks, weights), repeated)


def test_every_measure_says_what_it_means() -> None:
    assert all(measure.meaning.endswith(".") for measure in MEASURES.values())
    assert all(score.meaning.endswith(".") for score in SEGMENT_SCORES.values())


# --- tables ---------------------------------------------------------------------------------------


def segments(folder: Path, **changes: object) -> Path:
    """The scores of three cases and two structures, the second of which is absent once."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = {
        case: {
            "0": {"entropy": 0.0, "volume": 9.0},
            "1": {"entropy": 0.1 * k + 0.1, "volume": 5.0 + k},
            "2": {"entropy": None if k == 1 else 0.3, "volume": 0.0 if k == 1 else 4.0},
        }
        for k, case in enumerate(("case_a", "case_b", "case_c"))
    }
    names = {"1": "anterior", "2": "posterior"}
    content = {"version": 1, "structures": ["0", "1", "2"], "names": names, "cases": cases}
    file = folder / "segments.json"
    file.write_text(json.dumps(content | changes))
    return file


def test_a_table_has_a_row_per_case_and_structure_without_background(tmp_path: Path) -> None:
    table = read_table(segments(tmp_path).parent)
    assert table.cases_present == ("case_a", "case_b", "case_c")
    assert table.structures_present == ("anterior", "posterior")
    assert table.names == ("entropy", "volume")
    np.testing.assert_allclose(table.of("anterior").scores["entropy"], [0.1, 0.2, 0.3])
    assert table.absent.tolist() == [False, False, False, True, False, False]
    assert np.isnan(table.matrix(["volume"])[3, 0])


ONLY_BACKGROUND = {"case_a": {"0": {"entropy": 0.0, "volume": 9.0}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version must be 1, got 2"),
        ({"structures": ["0"]}, "case case_a has a structure that is not listed: 1"),
        ({"structures": ["0"], "cases": ONLY_BACKGROUND}, "no structures beside the background"),
        ({"cases": {}}, "there are no cases"),
        ({"cases": {"a": {"b": {"entropy": "high"}}}}, r"b\.entropy must be .*got 'high'"),
        ({"cases": [1]}, "cases must be a valid dictionary"),
        ({"names": {"1": "rim", "2": "rim"}}, "structures by different names, got 'rim' twice"),
        ({"names": {"1": "2"}}, "structures by different names, got '2' twice"),
    ],
)
def test_a_damaged_file_of_scores_is_one_line(tmp_path: Path, changes, message) -> None:
    file = segments(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path)
    assert str(caught.value).startswith(str(file))


def test_scores_that_are_missing_are_named(tmp_path: Path) -> None:
    cases = {"a": {"1": {"entropy": 0.1, "volume": 1.0, "pairwise_dice": None}}}
    table = read_table(segments(tmp_path, cases=cases))
    with pytest.raises(ValueError, match=r"scores must be among entropy, volume, .* got 'energy'"):
        table.matrix(["energy"])
    assert np.isnan(table.matrix(["pairwise_dice"])).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of predicted label maps with scores; the labels beside it."""
    (fold,), _, _, _ = write_cohort(tmp_path, members=1)
    segments(fold)
    described = {"labels": {"background": 0, "anterior": 1, "posterior": 2}}
    (fold / "dataset.json").write_text(
        json.dumps(described | {"channel_names": {"0": "T1"}, "file_ending": ".nii.gz"})
    )
    return fold


def test_dice_of_labels_and_of_a_summary_are_the_same(folder: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    labels = tmp_path / "labels"
    found = evaluate_folder(labels, folder, summary, surface=False, probabilities=False)
    by_labels = read_scored(folder, labels=labels)
    by_summary = read_scored(folder, summary=summary)
    assert by_labels.dice is not None
    np.testing.assert_array_equal(by_labels.dice, by_summary.dice)
    expected = [
        one["metrics"][key]["Dice"] for one in found["metric_per_case"] for key in ("1", "2")
    ]
    np.testing.assert_array_equal(by_labels.dice, expected)


def test_structures_without_names_go_by_their_numbers(folder: Path, tmp_path: Path) -> None:
    named = read_scored(folder, labels=tmp_path / "labels")
    (folder / "dataset.json").unlink()
    plain = read_scored(folder, labels=tmp_path / "labels")
    assert plain.structures_present == ("anterior", "posterior")
    np.testing.assert_array_equal(named.dice, plain.dice)
    segments(folder, names={})
    assert read_scored(folder, labels=tmp_path / "labels").structures_present == ("1", "2")


def test_references_of_other_cases_or_structures_are_refused(folder: Path, tmp_path: Path) -> None:
    labels, summary = tmp_path / "labels", tmp_path / "summary.json"
    evaluate_folder(labels, folder, summary, surface=False, probabilities=False)
    content = json.loads(summary.read_text())
    other = content | {"labels": {"1": "liver", "2": "spleen"}}
    summary.write_text(json.dumps(other))
    with pytest.raises(DataError, match="structures must be among anterior, posterior of"):
        read_scored(folder, summary=summary)
    for one in content["metric_per_case"]:
        one["case"] += "_other"
    summary.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has none of the 3 cases of"):
        read_scored(folder, summary=summary)
    summary.write_text("[1")
    with pytest.raises(DataError, match="not JSON"):
        read_scored(folder, summary=summary)
    with pytest.raises(ValueError, match="labels must be given or else summary, got both"):
        read_scored(folder, labels=labels, summary=summary)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="entropy must have a value per row, 1, got 2"):
        ScoreTable(("a",), ("b",), {"entropy": np.zeros(2)})


def test_a_case_of_nnunets_summary_may_have_dots_in_its_name(tmp_path: Path) -> None:
    cases = {case: {"1": {"entropy": 0.1, "volume": 5.0}} for case in ("a.1", "a.2", "a")}
    segments(tmp_path, cases=cases, structures=["1"], names={})
    summary = tmp_path / "summary.json"
    entries = [
        {"prediction_file": f"/p/{case}{ending}", "metrics": {"1": {"Dice": dice}}}
        for case, ending, dice in (
            ("a.1", ".nii.gz", 0.1),
            ("a.2", ".nrrd", 0.2),
            ("a", ".nii", 0.3),
        )
    ]
    summary.write_text(json.dumps({"metric_per_case": entries}))
    table = read_scored(tmp_path, summary=summary)
    assert dict(zip(table.cases, table.dice, strict=True)) == {"a": 0.3, "a.1": 0.1, "a.2": 0.2}
