"""What a predictor is given: scores of structures, as a table or as arrays, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats
from fastcal.scores import ScoreTable


@dataclass(frozen=True, slots=True)
class Observed:
    """Scores of structures in the order of a predictor."""

    scores: Floats
    """``[n, k]``; NaN where a score has no value."""
    structures: tuple[str, ...]
    """``[n]``"""
    cases: tuple[str, ...]
    """``[n]``"""
    absent: NDArray[np.bool_]
    """``[n]``, structures that were not predicted."""
    dice: Floats | None = None
    """``[n]``"""

    @classmethod
    def of(
        cls,
        given: Any,
        names: Sequence[str],
        structures: Sequence[str] | None = None,
        dice: Any = None,
        cases: Sequence[str] | None = None,
    ) -> Observed:
        """Read what a caller passed.

        Args:
            given: A `ScoreTable`, or numbers ``[n, k]``, where a row of NaN is a structure that was
                not predicted.
            names: The scores of the predictor.
            structures: ``[n]``, with numbers; None for one structure.
            dice: ``[n]``; None for that of the table.
            cases: ``[n]``, with numbers; None for a case of its own for each row.

        Raises:
            TypeError, ValueError: Something does not fit.
        """
        if isinstance(given, ScoreTable):
            found = cls(given.matrix(names), given.structures, given.cases, given.absent)
            dice = given.dice if dice is None else dice
        else:
            scores = _matrix(given, len(names))
            n = len(scores)
            found = cls(
                scores,
                _names(structures, n, "structures") or ("",) * n,
                _names(cases, n, "cases") or tuple(map(str, range(n))),
                np.asarray(np.isnan(scores).all(1), bool),
            )
        return found if dice is None else found._with_dice(dice)

    def _with_dice(self, dice: Any) -> Observed:
        values = np.asarray(dice)
        n = len(self.scores)
        if values.shape != (n,) or values.dtype.kind not in "fiu":
            raise ValueError(
                f"dice must be {n} numbers, one per row, got {values.dtype} of shape {values.shape}"
            )
        values = values.astype(np.float64)
        wrong = values[~np.isnan(values) & ~((values >= 0) & (values <= 1))]
        if wrong.size:
            raise ValueError(f"dice must lie between 0 and 1 or be NaN, got {wrong[0]:g}")
        return Observed(self.scores, self.structures, self.cases, self.absent, values)

    @property
    def truth(self) -> Floats:
        """The Dice ``[n]``.

        Raises:
            ValueError: They are not known.
        """
        if self.dice is None:
            raise ValueError("dice must be given where the table has none, got None")
        return self.dice

    def with_rows_of(self, other: Observed | None) -> Observed:
        """Return these rows and then those of another, all with their Dice."""
        if other is None:
            return self
        return Observed(
            np.concatenate([self.scores, other.scores]),
            self.structures + other.structures,
            self.cases + other.cases,
            np.concatenate([self.absent, other.absent]),
            np.concatenate([self.truth, other.truth]),
        )

    def rows(self, kept: NDArray[np.bool_]) -> Observed:
        """Return the rows where ``kept [n]`` is True."""
        where = np.flatnonzero(kept)
        return Observed(
            self.scores[where],
            tuple(self.structures[k] for k in where),
            tuple(self.cases[k] for k in where),
            self.absent[where],
            None if self.dice is None else self.dice[where],
        )

    def of_structure(self, structure: str) -> NDArray[np.bool_]:
        """Return which rows are of a structure."""
        return np.array([one == structure for one in self.structures], bool)


def _matrix(given: Any, columns: int) -> Floats:
    scores = np.asarray(given)
    if scores.dtype.kind not in "fiu":
        raise TypeError(
            f"X must be a ScoreTable or an array of numbers, got {type(given).__name__}"
        )
    if scores.ndim == 1 and columns == 1:
        scores = scores[:, None]
    if scores.ndim != 2 or scores.shape[1] != columns:
        raise ValueError(f"X must have shape [n, {columns}], got {scores.shape}")
    if np.isinf(scores).any():
        raise ValueError("X must hold finite numbers or NaN, got infinity")
    return scores.astype(np.float64)


def _names(values: Sequence[str] | None, n: int, name: str) -> tuple[str, ...] | None:
    if values is None:
        return None
    found = tuple(map(str, values))
    if len(found) != n:
        raise ValueError(f"{name} must have one name per row, {n}, got {len(found)}")
    return found
