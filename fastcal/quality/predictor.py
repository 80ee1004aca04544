"""Prediction of the Dice of a structure from its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastcal.core.arguments import choice, flag, real_number
from fastcal.core.arrays import Floats
from fastcal.core.doors import bounded
from fastcal.quality.conformal import Conformal, fewest_for
from fastcal.quality.logit import bounds_of, logit, unlogit
from fastcal.quality.observed import Observed
from fastcal.quality.regressions import MODELS, Line, Regression
from fastcal.quality.stored import store

try:
    from sklearn.base import BaseEstimator, RegressorMixin
except ImportError as error:
    raise ImportError(
        "fastcal.quality needs scikit-learn: pip install 'fastcal[quality]'"
    ) from error

MOST_TREES = 100_000
ModelName = Literal["linear", "ridge", "forest"]
IntervalName = Literal["band", "split", "normalised"]
INTERVALS: tuple[IntervalName, ...] = ("band", "split", "normalised")


@dataclass(frozen=True, slots=True)
class Fitted:
    """The regression of a group of structures."""

    regression: Regression
    medians: Floats
    """``[k]``, what stands for a score without a value."""

    def filled(self, scores: Floats) -> Floats:
        """Return scores ``[n, k]`` without NaN."""
        return np.where(np.isnan(scores), self.medians, scores)

    def predict(self, scores: Floats) -> Floats:
        """Return logit Dice ``[n]``."""
        return self.regression.predict(self.filled(scores))


class QualityPredictor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the Dice of predicted structures from their scores, with intervals.

    The regression is made on ``logit(Dice) = ln(D / (1 - D))``. The default is the paper's linear
    fit of one score with its band. It follows scikit-learn's interface: `fit`, `predict`,
    `get_params`, `set_params` and `sklearn.base.clone`.

    - A Dice of exactly 0 or 1 is moved to ``clip`` or ``1 - clip`` for the fit; bounds of intervals
      that reach the clip become 0 or 1.
    - A structure that was not predicted has no scores. It is left out of the fit, and its predicted
      Dice is 0, which is right wherever the reference has it.
    - A structure in neither prediction nor reference has no Dice and is left out of the fit.
    - A single score without a value is replaced by the median of the training structures, as that
      of a structure too thin to have an interior. A structure that lacks every score that is asked
      for is left out of the fit.

    Args:
        model: ``"linear"`` (one score), ``"ridge"`` (its penalty is chosen by leave-one-out errors)
            or ``"forest"``.
        scores: Names of the scores in a `fastcal.scores.ScoreTable`, or of the columns of X.
        per_structure: Fit each structure on its own instead of all of them together.
        interval: ``"band"``, that of the linear fit by Student's t; ``"split"``, conformal
            intervals of one width in logit Dice; ``"normalised"``, conformal intervals that are
            wider where training errors of the nearest structures are larger. Conformal intervals
            are calibrated with cases that the fit leaves out, for each structure on its own
            (Mondrian). They hold at their level whatever the errors are like, as long as the cases
            that follow are like those of the fit. None is ``"band"`` for the linear model and
            ``"split"`` for the others.
        level: Share of structures that an interval is to hold.
        calibration_share: Share of the cases that conformal intervals are calibrated with.
        mondrian: Calibrate each structure on its own; False calibrates all together.
        clip: See above.
        n_trees: Trees of the forest.
        seed: Of the forest, and of the choice of cases for calibration.

    Raises:
        TypeError, ValueError: An argument is out of range.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020, for the linear fit.

    Example:
        >>> entropy = np.array([[0.05], [0.10], [0.20], [0.30], [0.40]])
        >>> predictor = QualityPredictor().fit(entropy, [0.95, 0.93, 0.85, 0.70, 0.62])
        >>> predictor.predict([[0.25]]).round(2), predictor.predict_interval([[0.25]]).round(2)
        (array([0.81]), array([[0.7 , 0.88]]))
    """

    def __init__(
        self,
        model: ModelName = "linear",
        *,
        scores: Sequence[str] = ("binary_entropy",),
        per_structure: bool = False,
        interval: IntervalName | None = None,
        level: float = 0.95,
        calibration_share: float = 0.5,
        mondrian: bool = True,
        clip: float = 1e-3,
        n_trees: int = 200,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.scores = scores
        self.per_structure = per_structure
        self.interval = interval
        self.level = level
        self.calibration_share = calibration_share
        self.mondrian = mondrian
        self.clip = clip
        self.n_trees = n_trees
        self.seed = seed
        self._check()

    def fit(
        self,
        X: Any,
        dice: Any = None,
        *,
        structures: Sequence[str] | None = None,
        cases: Sequence[str] | None = None,
    ) -> QualityPredictor:
        """Fit to structures whose Dice is known.

        Args:
            X: A `fastcal.scores.ScoreTable`, or scores ``[n, k]`` in the order of ``scores``.
            dice: ``[n]``, between 0 and 1; None for that of the table.
            structures: ``[n]``, with an array; None where all rows are of one structure.
            cases: ``[n]``, with an array: rows of one case are kept together; None for a case of
                its own for each row.

        Returns:
            The predictor itself.

        Raises:
            TypeError, ValueError: An argument does not fit, or there are too few structures.
        """
        self._check()
        rows = Observed.of(X, self.scores, structures, dice, cases)
        rows = rows.rows(~rows.absent & ~np.isnan(rows.truth))
        chosen = self._calibration_rows(rows)
        return self.refit(rows.rows(~chosen), rows.rows(chosen) if chosen.any() else None)

    def refit(self, training: Observed, calibration: Observed | None) -> QualityPredictor:
        """Fit to rows that were chosen before; `fit` and `load` end here."""
        self.training_ = training
        self.calibration_ = calibration
        self.structures_ = tuple(sorted(set(training.with_rows_of(calibration).structures)))
        self.n_features_in_ = len(self.scores)
        self.fits_: dict[str, Fitted] = {}
        for group in self.structures_ if self.per_structure else ("",):
            rows = training.rows(training.of_structure(group)) if self.per_structure else training
            self.fits_[group] = self._fitted(rows, group)
        self.conformal_ = None if calibration is None else self._conformal(training, calibration)
        return self

    def predict(self, X: Any, structures: Sequence[str] | None = None) -> Floats:
        """Return the predicted Dice ``[n]``; 0 for structures that were not predicted.

        Args:
            X: A `fastcal.scores.ScoreTable`, or scores ``[n, k]``.
            structures: ``[n]``, with an array.

        Raises:
            TypeError, ValueError: It is not fitted, an argument does not fit, or a structure is not
                one of the fit.
        """
        rows = self._rows(X, structures)
        return np.where(rows.absent, 0.0, unlogit(self._logits(rows)))

    def predict_interval(
        self, X: Any, structures: Sequence[str] | None = None, *, level: float | None = None
    ) -> Floats:
        """Return bounds of the Dice ``[n, 2]``; 0 and 0 for structures that were not predicted.

        Args:
            X: A `fastcal.scores.ScoreTable`, or scores ``[n, k]``.
            structures: ``[n]``, with an array.
            level: Share of structures that the intervals are to hold; None for that of the
                predictor.

        Raises:
            TypeError, ValueError: See `predict`; or there are too few calibration structures for
                this level.
        """
        level = self.level if level is None else _share(level, "level")
        rows = self._rows(X, structures)
        predicted = self._logits(rows)
        if self.conformal_ is None:
            half = self._half_band(rows, level)
            bounds = np.stack([predicted - half, predicted + half], axis=1)
        else:
            groups = rows.structures if self.mondrian else None
            filled = self._filled(rows)
            bounds = self.conformal_.interval(predicted, filled, groups, level)
        return np.where(rows.absent[:, None], 0.0, bounds_of(bounds, self.clip))

    def predict_band(
        self, X: Any, structures: Sequence[str] | None = None, *, level: float | None = None
    ) -> Floats:
        """Return the bounds ``[n, 2]`` of the mean Dice: the band about the paper's line.

        Raises:
            TypeError, ValueError: See `predict`; or the model is not linear.
        """
        level = self.level if level is None else _share(level, "level")
        rows = self._rows(X, structures)
        half = self._half_band(rows, level, of_mean=True)
        predicted = self._logits(rows)
        return unlogit(np.stack([predicted - half, predicted + half], axis=1))

    def score(self, X: Any, dice: Any = None, structures: Sequence[str] | None = None) -> float:
        """Return the coefficient of determination of the predicted Dice, as scikit-learn has it.

        Structures without a Dice are left out.
        """
        rows = self._rows(X, structures, dice)
        known = ~np.isnan(rows.truth)
        truth = rows.truth[known]
        errors = truth - self.predict(X, structures)[known]
        return 1.0 - float((errors**2).sum() / ((truth - truth.mean()) ** 2).sum())

    def line(self, structure: str | None = None) -> Line:
        """Return the linear fit: slope, intercept, r and its p-value.

        Args:
            structure: Which of them, with ``per_structure``.

        Raises:
            ValueError: It is not fitted, the model is not linear, or there is no such structure.
        """
        self._check_fitted()
        names = tuple(self.fits_)
        wanted = names[0] if structure is None and len(names) == 1 else structure or ""
        if wanted not in self.fits_:
            raise ValueError(
                f"structure must be {' or '.join(repr(one) for one in names)}, got {structure!r}"
            )
        found = self.fits_[wanted].regression
        if not isinstance(found, Line):
            raise ValueError(f"model must be 'linear' to have a line, got {self.model!r}")
        return found

    def save(self, path: str | Path) -> None:
        """Write settings and training scores as JSON, whole or not at all; `load` fits again.

        Raises:
            ValueError: It is not fitted.
            OSError: The file cannot be written.
        """
        self._check_fitted()
        parameters = self.get_params()
        parameters["scores"] = list(parameters["scores"])
        training = self.training_
        predicted = self.predict(training.scores, training.structures)
        store(path, parameters, training, self.calibration_, predicted)

    # --- inside ---------------------------------------------------------------------------------

    def _check(self) -> None:
        choice(self.model, "model", tuple(MODELS))
        if isinstance(self.scores, str) or not all(isinstance(one, str) for one in self.scores):
            raise TypeError(f"scores must be names of scores, got {self.scores!r}")
        n = len(set(self.scores))
        if n != len(self.scores) or n == 0:
            raise ValueError(f"scores must be different names, at least one, got {self.scores!r}")
        if self.model == "linear" and n != 1:
            raise ValueError(
                f"model must be 'ridge' or 'forest' for {n} scores, got 'linear', which takes one"
            )
        if self.interval is not None:
            choice(self.interval, "interval", INTERVALS)
        if self.interval == "band" and self.model != "linear":
            raise ValueError(
                f"interval must be 'split' or 'normalised' for the model {self.model!r}, got 'band'"
            )
        flag(self.per_structure, "per_structure")
        flag(self.mondrian, "mondrian")
        _share(self.level, "level")
        _share(self.calibration_share, "calibration_share")
        if not 0 < real_number(self.clip, "clip") < 0.5:
            raise ValueError(f"clip must lie between 0 and 0.5, got {self.clip:g}")
        bounded(self.n_trees, "n_trees", MOST_TREES)
        bounded(self.seed, "seed", 2**32 - 1, least=0)  # scikit-learn's seeds have 32 bits

    @property
    def _kind(self) -> str:
        return self.interval or ("band" if self.model == "linear" else "split")

    def _check_fitted(self) -> None:
        if not hasattr(self, "fits_"):
            raise ValueError("the predictor is not fitted yet: call fit first")

    def _rows(self, X: Any, structures: Sequence[str] | None, dice: Any = None) -> Observed:
        self._check_fitted()
        rows = Observed.of(X, self.scores, structures, dice)
        other = sorted(set(rows.structures) - set(self.structures_))
        if other:
            raise ValueError(
                "structures must be among those of the fit, "
                f"{', '.join(self.structures_)}, got {', '.join(other)}"
            )
        return rows

    def _calibration_rows(self, rows: Observed) -> Any:
        if self._kind == "band":
            return np.zeros(len(rows.cases), bool)
        names = sorted(set(rows.cases))
        order = np.random.default_rng(self.seed).permutation(len(names))
        n = round(self.calibration_share * len(names))
        chosen = {names[k] for k in order[:n]}
        return np.array([case in chosen for case in rows.cases], bool)

    def _fitted(self, rows: Observed, group: str) -> Fitted:
        rows = rows.rows(np.asarray(~np.isnan(rows.scores).all(1), bool))
        n, needed = len(rows.cases), MODELS[self.model].fewest(len(self.scores))
        of = f" of {group}" if group else ""
        if n < needed:
            held = "" if self._kind == "band" else " beside those for calibration"
            raise ValueError(
                f"X must hold at least {needed} structures{of} with scores and a Dice{held} "
                f"for the model {self.model!r}, got {n}"
            )
        for name, column in zip(self.scores, rows.scores.T, strict=True):
            if np.isnan(column).all():
                raise ValueError(
                    f"scores must have values in the fit, got {name!r} without any{of}"
                )
            if self.model == "linear" and np.ptp(column[~np.isnan(column)]) == 0:
                raise ValueError(
                    f"X must hold scores that differ, got {column[0]:g} of {name!r} in all {n} "
                    f"structures{of}"
                )
        medians = np.nanmedian(rows.scores, axis=0)
        filled = np.where(np.isnan(rows.scores), medians, rows.scores)
        target = logit(rows.truth, self.clip)
        return Fitted(MODELS[self.model].fit(filled, target, self.n_trees, self.seed), medians)

    def _conformal(self, training: Observed, calibration: Observed) -> Conformal:
        if self.mondrian:
            calibrated = set(calibration.structures)
            for name in self.structures_:
                if name not in calibrated:
                    raise ValueError(
                        f"X must hold at least {fewest_for(self.level)} structures"
                        f"{' of ' + name if name else ''} for calibration at level "
                        f"{self.level:g}, got 0"
                    )
        residuals = logit(calibration.truth, self.clip) - self._logits(calibration)
        pair = None
        if self._kind == "normalised":
            errors = np.abs(logit(training.truth, self.clip) - self._logits(training))
            pair = self._filled(training), errors
        groups = calibration.structures if self.mondrian else None
        found = Conformal.fit(residuals, self._filled(calibration), groups, pair)
        found.check_level(self.level)
        return found

    def _each_fit(self, rows: Observed) -> Any:
        """Yield each fit with the rows that it is for."""
        for group, fitted in self.fits_.items():
            mask = (
                rows.of_structure(group) if self.per_structure else np.full(len(rows.cases), True)
            )
            if mask.any():
                yield fitted, mask

    def _filled(self, rows: Observed) -> Floats:
        found = rows.scores.copy()
        for fitted, mask in self._each_fit(rows):
            found[mask] = fitted.filled(rows.scores[mask])
        return found

    def _logits(self, rows: Observed) -> Floats:
        found = np.zeros(len(rows.cases))
        for fitted, mask in self._each_fit(rows):
            found[mask] = fitted.predict(rows.scores[mask])
        return found

    def _half_band(self, rows: Observed, level: float, *, of_mean: bool = False) -> Floats:
        found = np.zeros(len(rows.cases))
        for fitted, mask in self._each_fit(rows):
            if not isinstance(fitted.regression, Line):
                raise ValueError(f"model must be 'linear' to have a band, got {self.model!r}")
            scores = fitted.filled(rows.scores[mask])
            found[mask] = fitted.regression.half_band(scores, level, of_mean=of_mean)
        return found


def _share(value: object, name: str) -> float:
    number = real_number(value, name)
    if not 0 < number < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {number:g}")
    return number
