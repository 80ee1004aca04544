"""Conformal intervals of logit Dice: split and normalised, together or per structure (Mondrian)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats

NEIGHBOURS = 10
"""Training structures whose errors tell how hard a structure is."""


def fewest_for(level: float) -> int:
    """Return how many calibration structures an interval of this level needs.

    With fewer, the level is beyond the largest error that was seen.

    Example:
        >>> fewest_for(0.9), fewest_for(0.95)
        (9, 19)
    """
    return math.ceil(1 / (1 - level) - 1 - 1e-9)


@dataclass(frozen=True)
class Conformal:
    """Calibrated residuals; the intervals hold at the level asked for, averaged over structures.

    Source: Papadopoulos et al., ECML 2002 (split), ICTAI 2008 (normalised); Vovk et al.,
    Algorithmic Learning in a Random World, 2005 (Mondrian). The intervals are those of crepes.
    """

    regressor: Any
    counts: dict[str, int]
    """Calibration structures by group; the only group is ``""`` without Mondrian."""
    difficulty: Any | None
    """A regression of absolute training errors on scores, for normalised intervals."""
    floor: float
    """Added to a difficulty, so that no interval has a width of 0."""

    @classmethod
    def fit(
        cls,
        residuals: Floats,
        scores: Floats,
        groups: Sequence[str] | None,
        training: tuple[Floats, Floats] | None,
    ) -> Conformal:
        """Calibrate.

        Args:
            residuals: ``[n]`` of structures that the regression has not seen.
            scores: ``[n, k]``, theirs.
            groups: ``[n]``, a category for each (Mondrian); None for one of all.
            training: Scores ``[m, k]`` and absolute errors ``[m]`` of the training structures, for
                normalised intervals; None for intervals of one width.
        """
        names = [""] * len(residuals) if groups is None else list(groups)
        counts = {name: names.count(name) for name in dict.fromkeys(names)}
        difficulty, floor = None, 0.0
        if training is not None:
            difficulty, floor = _difficulty(*training)
        made = cls(_regressor(), counts, difficulty, floor)
        bins = None if groups is None else np.asarray(names)
        made.regressor.fit(residuals, sigmas=made._sigmas(scores), bins=bins)
        return made

    def interval(
        self, predicted: Floats, scores: Floats, groups: Sequence[str] | None, level: float
    ) -> Floats:
        """Return bounds ``[n, 2]`` of logit Dice.

        Args:
            predicted: Logit Dice ``[n]`` by the regression.
            scores: ``[n, k]``
            groups: ``[n]``, as in the fit.
            level: Share of structures that the intervals are to hold.

        Raises:
            ValueError: There are too few calibration structures for this level.
        """
        self.check_level(level)
        found: Floats = self.regressor.predict_int(
            predicted,
            sigmas=self._sigmas(scores),
            bins=None if groups is None else np.asarray(list(groups)),
            # The rank is (1 - level)(n + 1), rounded down: 1 - 0.9 is a little less than 0.1.
            confidence=level - 1e-12,
        )
        return found

    def check_level(self, level: float) -> None:
        """Raise a ValueError if there are too few calibration structures for intervals."""
        needed = fewest_for(level)
        for name, count in self.counts.items():
            if count < needed:
                of = f" of {name}" if name else ""
                raise ValueError(
                    f"level must be one that {count} calibration structures{of} allow "
                    f"({needed} are needed), got {level:g}"
                )

    def _sigmas(self, scores: Floats) -> NDArray[np.float64] | None:
        if self.difficulty is None:
            return None
        found: Floats = self.difficulty.predict(scores) + self.floor
        return found


def _difficulty(scores: Floats, errors: Floats) -> tuple[Any, float]:
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    neighbours = KNeighborsRegressor(min(NEIGHBOURS, len(errors)))
    found = make_pipeline(StandardScaler(), neighbours).fit(scores, errors)
    return found, max(0.1 * float(errors.mean()), 1e-6)


def _regressor() -> Any:
    # crepes sets a filter for all warnings of the process when it is imported.
    with warnings.catch_warnings():
        try:
            from crepes import ConformalRegressor
        except ImportError as error:
            raise ImportError(
                "conformal intervals need crepes: pip install 'fastcal[quality]'"
            ) from error
    return ConformalRegressor()
