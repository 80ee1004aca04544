"""Scores of structures, case by case, with their Dice where references are known."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arrays import Floats


@dataclass(frozen=True)
class ScoreTable:
    """A row for every case and structure.

    Raises:
        ValueError: The columns differ in length.

    Example:
        >>> table = ScoreTable(("a", "b"), ("heart", "heart"), {"entropy": np.array([0.1, 0.3])})
        >>> table.names, len(table), table.structures_present
        (('entropy',), 2, ('heart',))
    """

    cases: tuple[str, ...]
    """``[n]``, the case of each row."""
    structures: tuple[str, ...]
    """``[n]``, the structure of each row."""
    scores: Mapping[str, Floats] = field(default_factory=lambda: MappingProxyType({}))
    """Columns ``[n]`` by name; NaN where there is no value."""
    dice: Floats | None = None
    """``[n]``; NaN where neither reference nor prediction has the structure."""

    def __post_init__(self) -> None:
        columns = {"structures": self.structures, **self.scores}
        if self.dice is not None:
            columns["dice"] = self.dice
        for name, column in columns.items():
            if len(column) != len(self.cases):
                raise ValueError(
                    f"{name} must have a value per row, {len(self.cases)}, got {len(column)}"
                )

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(self.scores)

    @property
    def structures_present(self) -> tuple[str, ...]:
        """Every structure once, in the order of their first rows."""
        return tuple(dict.fromkeys(self.structures))

    @property
    def cases_present(self) -> tuple[str, ...]:
        """Every case once, in the order of their first rows."""
        return tuple(dict.fromkeys(self.cases))

    @property
    def absent(self) -> NDArray[np.bool_]:
        """``[n]``, whether the structure was not predicted: volume 0, or no score at all."""
        if "volume" in self.scores:
            volume = self.scores["volume"]
            return np.asarray((volume == 0) | np.isnan(volume), bool)
        if not self.scores:
            return np.zeros(len(self), bool)
        return np.asarray(np.isnan(np.stack(list(self.scores.values()))).all(0), bool)

    def matrix(self, names: Sequence[str]) -> Floats:
        """Return scores ``[n, len(names)]``; rows of structures that were not predicted are NaN.

        Raises:
            ValueError: There is no such score, as where it needs members that were not kept.
        """
        columns = []
        for name in names:
            if name not in self.scores:
                raise ValueError(
                    f"scores must be among {', '.join(self.names) or 'those of the table'}, "
                    f"got {name!r}"
                )
            columns.append(np.where(self.absent, np.nan, self.scores[name]))
        return np.stack(columns, axis=1) if columns else np.empty((len(self), 0))

    def rows(self, kept: NDArray[np.bool_]) -> ScoreTable:
        """Return the rows where ``kept [n]`` is True."""
        where = np.flatnonzero(kept)
        return ScoreTable(
            tuple(self.cases[k] for k in where),
            tuple(self.structures[k] for k in where),
            {name: column[where] for name, column in self.scores.items()},
            None if self.dice is None else self.dice[where],
        )

    def of(self, structure: str) -> ScoreTable:
        """Return the rows of one structure."""
        return self.rows(np.array([one == structure for one in self.structures], bool))

    def without(self, structures: Collection[str]) -> ScoreTable:
        """Return the rows of all other structures."""
        return self.rows(np.array([one not in structures for one in self.structures], bool))

    def with_dice(self, dice: Mapping[tuple[str, str], float]) -> ScoreTable:
        """Return the rows whose case and structure have a Dice, with it."""
        keys = list(zip(self.cases, self.structures, strict=True))
        kept = self.rows(np.array([key in dice for key in keys], bool))
        found = [dice[key] for key in zip(kept.cases, kept.structures, strict=True)]
        return replace(kept, dice=np.array(found, np.float64))
