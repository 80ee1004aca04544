"""QualityPredictor: the paper's fit and its band, other models, conformal intervals, files."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from segment_tables import table
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from fastcal.core.errors import DataError
from fastcal.quality import QualityPredictor, filtered_dice, load


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def logit(dice: np.ndarray) -> np.ndarray:
    return np.log(dice / (1 - dice))


def entropy_and_dice(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    entropy = rng.uniform(0.02, 0.6, n)
    return entropy, sigmoid(3 - 6 * entropy + rng.normal(0, 0.4, n))


# --- the paper's fit ------------------------------------------------------------------------------


def test_the_line_is_least_squares_of_logit_dice() -> None:
    entropy, dice = entropy_and_dice()
    design = np.stack([np.ones_like(entropy), entropy], axis=1)
    intercept, slope = np.linalg.solve(design.T @ design, design.T @ logit(dice))
    fitted = QualityPredictor().fit(entropy, dice)
    line = fitted.line()
    assert (line.intercept, line.slope) == pytest.approx((intercept, slope))
    assert line.r == pytest.approx(stats.pearsonr(entropy, logit(dice))[0])
    expected = sigmoid(intercept + slope * np.array([0.1, 0.5]))
    np.testing.assert_allclose(fitted.predict([[0.1], [0.5]]), expected)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_bands_are_those_of_the_normal_linear_model(level: float) -> None:
    entropy, dice = entropy_and_dice(12)
    design = np.stack([np.ones_like(entropy), entropy], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    weights = inverse @ design.T @ logit(dice)
    variance = ((logit(dice) - design @ weights) ** 2).sum() / (len(dice) - 2)
    at = np.array([[1.0, 0.05], [1.0, 0.7]])
    lever = np.einsum("ni,ij,nj->n", at, inverse, at)
    t = stats.t.ppf((1 + level) / 2, len(dice) - 2)
    fitted = QualityPredictor(level=level).fit(entropy, dice)
    for found, extra in (
        (fitted.predict_interval(at[:, 1:]), 1.0),
        (fitted.predict_band(at[:, 1:]), 0.0),
    ):
        half = t * np.sqrt(variance * (lever + extra))
        expected = sigmoid(np.stack([at @ weights - half, at @ weights + half], axis=1))
        np.testing.assert_allclose(found, expected)


def test_dice_of_exactly_0_and_1_are_moved_to_the_clip() -> None:
    entropy = np.array([0.0, 0.1, 0.3, 0.5])
    dice = np.array([1.0, 0.9, 0.6, 0.0])
    clipped = np.clip(dice, 0.01, 0.99)
    line = QualityPredictor(clip=0.01).fit(entropy, dice).line()
    expected = stats.linregress(entropy, logit(clipped))
    assert line.slope == pytest.approx(expected.slope)


def test_a_bound_beyond_the_clip_is_0_or_1() -> None:
    entropy, dice = entropy_and_dice(8)
    fitted = QualityPredictor(clip=0.4).fit(entropy, dice)
    assert fitted.predict_interval([[0.5]])[0].tolist() == [0.0, 1.0]
    assert 0 < fitted.predict([[0.5]])[0] < 1


def test_each_structure_has_its_own_line() -> None:
    made = table()
    fitted = QualityPredictor(per_structure=True).fit(made)
    for name in ("anterior", "posterior"):
        own = made.of(name)
        alone = QualityPredictor().fit(own.scores["binary_entropy"], own.dice).line()
        assert fitted.line(name).slope == pytest.approx(alone.slope)
        np.testing.assert_allclose(
            fitted.predict(own), sigmoid(alone.predict(own.matrix(["binary_entropy"])))
        )
    with pytest.raises(ValueError, match="structure must be 'anterior' or 'posterior', got None"):
        fitted.line()


# --- several scores -------------------------------------------------------------------------------

TWO = ("binary_entropy", "pairwise_dice")


def test_ridge_solves_its_normal_equations() -> None:
    made = table()
    fitted = QualityPredictor("ridge", scores=TWO, interval="split").fit(made)
    rows = fitted.training_
    x = (rows.scores - rows.scores.mean(0)) / rows.scores.std(0)
    y = logit(np.clip(rows.truth, 1e-3, 1 - 1e-3))
    penalty = fitted.fits_[""].regression[-1].alpha_
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(2), x.T @ (y - y.mean()))
    np.testing.assert_allclose(
        fitted.predict(rows.scores, rows.structures), sigmoid(y.mean() + x @ weights)
    )


def test_a_forest_predicts_within_the_training_dice_and_is_repeatable() -> None:
    made = table(60)
    one, two = (QualityPredictor("forest", scores=TWO, n_trees=20).fit(made) for _ in range(2))
    predicted = one.predict(made)
    np.testing.assert_array_equal(predicted, two.predict(made))
    assert one.training_.truth.min() <= predicted.min()
    assert predicted.max() <= one.training_.truth.max()
    assert np.corrcoef(predicted, made.dice)[0, 1] > 0.8


def test_the_interface_is_that_of_scikit_learn() -> None:
    entropy, dice = entropy_and_dice(80)
    predictor = QualityPredictor("ridge", scores=("entropy",), level=0.8)
    copy = clone(predictor).set_params(level=0.9)
    assert copy.get_params()["level"] == 0.9
    assert predictor.get_params()["level"] == 0.8
    assert cross_val_score(predictor, entropy[:, None], dice, cv=3).min() > 0.5
    fitted = predictor.fit(entropy, dice)
    errors = dice - fitted.predict(entropy)
    expected = 1 - (errors**2).sum() / ((dice - dice.mean()) ** 2).sum()
    assert fitted.score(entropy, dice) == pytest.approx(expected)


# --- structures without scores --------------------------------------------------------------------


def test_a_structure_that_was_not_predicted_gets_0_and_is_left_out_of_the_fit() -> None:
    made = table(20)
    scores = {name: column.copy() for name, column in made.scores.items()}
    for name in scores:
        scores[name][3] = 0.0 if name == "volume" else np.nan
    dice = made.dice.copy()
    dice[3] = 0.0
    holed = replace(made, scores=scores, dice=dice)
    keep = np.arange(len(made)) != 3
    fitted, expected = (QualityPredictor().fit(one) for one in (holed, made.rows(keep)))
    assert fitted.line() == expected.line()
    assert fitted.predict(holed)[3] == 0.0
    assert fitted.predict_interval(holed)[3].tolist() == [0.0, 0.0]


def test_a_single_missing_score_is_the_median_of_the_training() -> None:
    made = table(30)
    fitted = QualityPredictor("ridge", scores=TWO, level=0.9).fit(made)
    median = np.median(fitted.training_.scores[:, 1])
    rows = np.array([[0.3, np.nan], [0.3, median]])
    found = fitted.predict(rows, ["anterior", "anterior"])
    assert found[0] == found[1]


def test_structures_without_a_dice_are_left_out() -> None:
    entropy, dice = entropy_and_dice(20)
    more = QualityPredictor().fit([*entropy, 0.9], [*dice, np.nan])
    assert more.line() == QualityPredictor().fit(entropy, dice).line()


# --- conformal intervals --------------------------------------------------------------------------


@pytest.mark.parametrize("mondrian", [True, False])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_split_intervals_are_order_statistics_of_held_out_errors(level, mondrian) -> None:
    made = table(40)
    fitted = QualityPredictor(interval="split", level=level, mondrian=mondrian).fit(made)
    assert not set(fitted.training_.cases) & set(fitted.calibration_.cases)
    line, held = fitted.line(), fitted.calibration_
    errors = np.abs(logit(held.truth) - line.predict(held.scores))
    found = fitted.predict_interval(made)
    for name in ("anterior", "posterior"):
        own = errors[held.of_structure(name)] if mondrian else errors
        rank = int(np.ceil(level * (len(own) + 1) - 1e-9))
        half = np.sort(own)[rank - 1]
        rows = np.array([one == name for one in made.structures])
        middle = line.predict(made.matrix(["binary_entropy"])[rows])
        expected = sigmoid(np.stack([middle - half, middle + half], axis=1))
        np.testing.assert_allclose(found[rows], expected, rtol=1e-9)


def test_nine_calibration_structures_are_enough_for_90_per_cent() -> None:
    entropy, dice = entropy_and_dice(18)
    fitted = QualityPredictor(interval="split", level=0.9).fit(entropy, dice)
    assert len(fitted.calibration_.cases) == 9
    half = np.abs(
        logit(fitted.calibration_.truth) - fitted.line().predict(fitted.calibration_.scores)
    ).max()
    low = sigmoid(fitted.line().predict(np.array([[0.2]])) - half)
    assert fitted.predict_interval([[0.2]])[0, 0] == pytest.approx(low[0])
    with pytest.raises(ValueError, match=r"9 calibration structures allow \(19 are needed\)"):
        fitted.predict_interval([[0.2]], level=0.95)


@pytest.mark.parametrize(
    ("model", "interval"),
    [("linear", "split"), ("linear", "normalised"), ("ridge", "split"), ("ridge", "normalised")],
)
def test_conformal_intervals_hold_at_their_level_for_any_errors(model, interval) -> None:
    """Errors that grow with the score: a band of one width by Student's t would not hold."""
    level, held, n = 0.8, [], 300
    for seed in range(25):
        rng = np.random.default_rng(seed)
        entropy = rng.uniform(0, 0.6, 80 + n)
        noise = rng.standard_t(3, 80 + n) * (0.05 + 3 * entropy**2)
        dice = sigmoid(3 - 6 * entropy + noise)
        predictor = QualityPredictor(model, interval=interval, level=level, seed=seed)
        fitted = predictor.fit(entropy[:80], dice[:80])
        bounds = fitted.predict_interval(entropy[80:])
        held.append(np.mean((bounds[:, 0] <= dice[80:]) & (dice[80:] <= bounds[:, 1])))
    # Of 40 calibration structures, 33 of 41 ranks: between 0.8 and 0.8 + 1/41.
    error = 3 * np.std(held) / np.sqrt(len(held))
    assert level - error < np.mean(held) < level + 1 / 41 + error


def test_normalised_intervals_are_wider_where_errors_are_larger() -> None:
    rng = np.random.default_rng(3)
    entropy = rng.uniform(0, 0.6, 300)
    dice = sigmoid(1 + rng.normal(0, 1, 300) * (0.05 + 2 * entropy))
    fitted = QualityPredictor(interval="normalised", level=0.9).fit(entropy, dice)
    widths = np.diff(fitted.predict_interval([[0.03], [0.57]]), axis=1).ravel()
    assert widths[1] > 3 * widths[0]


def test_importing_crepes_leaves_the_filters_of_warnings_alone(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "crepes"]:
        monkeypatch.delitem(sys.modules, name)
    entropy, dice = entropy_and_dice()
    before = list(warnings.filters)
    QualityPredictor(interval="split").fit(entropy, dice)
    assert "crepes" in sys.modules
    assert warnings.filters == before


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "boosting"}, "model must be 'linear', 'ridge' or 'forest', got 'boosting'"),
        ({"scores": ()}, "scores must be different names, at least one"),
        ({"scores": ("a", "a")}, "scores must be different names"),
        ({"scores": ("a", "b")}, "model must be 'ridge' or 'forest' for 2 scores, got 'linear'"),
        ({"model": "forest", "interval": "band"}, "interval must be 'split' or 'normalised'"),
        ({"interval": "wide"}, "interval must be 'band'"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1"),
        ({"calibration_share": 0.0}, "calibration_share must lie between 0 and 1, got 0"),
        ({"clip": 0.5}, "clip must lie between 0 and 0.5, got 0.5"),
        ({"n_trees": 0}, "n_trees must be from 1 to 100000, got 0"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
    ],
)
def test_settings_out_of_range_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        QualityPredictor(**options)


@pytest.mark.parametrize(
    ("entropy", "dice", "message"),
    [
        ([0.1, 0.2], [0.9, 0.8], "X must hold at least 3 structures .* 'linear', got 2"),
        ([0.1, 0.1, 0.1], [0.9, 0.8, 0.7], "X must hold scores that differ, got 0.1"),
        ([0.1, 0.2, 0.3], [0.9, 0.8, 1.7], "dice must lie between 0 and 1 or be NaN, got 1.7"),
        ([0.1, 0.2, 0.3], [0.9, 0.8], "dice must be 3 numbers, one per row, got"),
        ([0.1, 0.2, np.inf], [0.9, 0.8, 0.7], "X must hold finite numbers or NaN, got infinity"),
        ([[0.1, 0.2]], [0.9], r"X must have shape \[n, 1\], got \(1, 2\)"),
        (["a"], [0.9], "X must be a ScoreTable or an array of numbers, got list"),
        ([0.1, 0.2, 0.3], None, "dice must be given where the table has none, got None"),
    ],
)
def test_a_fit_that_cannot_be_made_says_why(entropy, dice, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        QualityPredictor().fit(entropy, dice)


def test_too_few_cases_for_conformal_intervals_are_named_with_their_structure() -> None:
    with pytest.raises(ValueError, match=r"10 calibration structures of anterior .*\(19 are"):
        QualityPredictor(interval="split").fit(table(20))


def test_structures_of_another_fit_are_refused() -> None:
    fitted = QualityPredictor().fit(table())
    other = table(5, structures=("liver", "spleen"))
    with pytest.raises(
        ValueError, match=r"structures must be among .*anterior, posterior, got liver, spleen"
    ):
        fitted.predict(other)
    with pytest.raises(ValueError, match="not fitted yet: call fit first"):
        QualityPredictor().predict(other)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_structure": True},
        {"model": "ridge", "scores": TWO, "interval": "normalised", "level": 0.8},
        {"model": "forest", "scores": TWO, "n_trees": 10, "mondrian": False},
    ],
)
def test_a_saved_predictor_predicts_the_same(options, tmp_path: Path) -> None:
    fitted = QualityPredictor(**options).fit(table(50))
    fitted.save(tmp_path / "quality.json")
    read, other = load(tmp_path / "quality.json"), table(9, seed=8)
    assert read.get_params() == fitted.get_params() | {"scores": list(fitted.scores)}
    np.testing.assert_array_equal(read.predict(other), fitted.predict(other))
    np.testing.assert_array_equal(read.predict_interval(other), fitted.predict_interval(other))
    assert "case_0" not in (tmp_path / "quality.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format must be 'fastcal quality predictor', got 'other'"),
        ({"version": 2}, "version must be 1, got 2"),
        ({"parameters": {"models": "linear"}}, "not a fastcal quality predictor"),
        ({"parameters": {"level": 2.0}}, "level must lie between 0 and 1, got 2"),
        ({"training": None}, "training must be"),
        ({"predicted": [0.5]}, "gives other predictions: fit again"),
        ({"extra": 1}, "extra is not known"),
    ],
)
def test_a_damaged_file_is_one_line(changes, message, tmp_path: Path) -> None:
    file = tmp_path / "quality.json"
    QualityPredictor().fit(table(5)).save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(DataError, match=message) as caught:
        load(file)
    assert str(caught.value).startswith(str(file))


def test_rows_of_a_file_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "quality.json"
    QualityPredictor().fit(table(5)).save(file)
    content = json.loads(file.read_text())
    content["training"]["scores"][0] = [0.1, 0.2]
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"quality\.json: damaged, or not a fastcal quality predictor"
    ):
        load(file)


# --- filtered Dice --------------------------------------------------------------------------------


def test_filtered_dice_is_that_of_the_voxels_below_each_threshold() -> None:
    rng = np.random.default_rng(1)
    uncertainty = rng.integers(0, 11, (6, 7, 5)) / 10
    prediction, reference, kept = (rng.random((6, 7, 5)) < share for share in (0.4, 0.5, 0.9))
    found = filtered_dice(uncertainty, prediction, reference, kept=kept, n_thresholds=10)
    p, r = prediction[kept], reference[kept]
    for k, threshold in enumerate(found.thresholds):
        left = uncertainty[kept] <= threshold
        both = p[left].sum() + r[left].sum()
        dice = 2 * (p & r)[left].sum() / both if both else 1.0
        assert found.dice[k] == pytest.approx(dice)
        assert found.filtered_true_positives[k] == pytest.approx(
            1 - (p & r)[left].sum() / (p & r).sum()
        )
        assert found.filtered_true_negatives[k] == pytest.approx(
            1 - (~p & ~r)[left].sum() / (~p & ~r).sum()
        )
    x = found.thresholds
    parts = [np.trapezoid(found.dice, x)]
    parts += [1 - np.trapezoid(found.filtered_true_positives, x)]
    parts += [1 - np.trapezoid(found.filtered_true_negatives, x)]
    assert found.score == pytest.approx(np.mean(parts))


def test_certain_voxels_that_are_right_give_the_best_score() -> None:
    mask = np.array([True, False, True])
    assert filtered_dice(np.zeros(3), mask, mask).score == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uncertainty": [0.1, -0.2]}, "uncertainty must be at least 0, got -0.2"),
        ({"uncertainty": [0.1, np.nan]}, "uncertainty must be at least 0, got nan"),
        ({"prediction": [1, 0]}, "prediction must be a mask of True and False"),
        ({"reference": [True]}, "reference must have the shape of uncertainty"),
        ({"n_thresholds": 0}, "n_thresholds must be from 1 to 1000000, got 0"),
    ],
)
def test_masks_and_uncertainties_that_do_not_fit_are_named(change, message) -> None:
    given = {"uncertainty": [0.1, 0.2], "prediction": [True, False], "reference": [True, True]}
    with pytest.raises((TypeError, ValueError), match=message):
        filtered_dice(**(given | change))
