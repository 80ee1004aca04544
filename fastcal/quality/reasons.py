"""Why a structure should be looked at: which of its scores is unlike those of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.quality.observed import Observed
from fastcal.scores import unsure_end

RARE = 0.05
"""A score that fewer training structures than this share reach is a reason."""


@dataclass(frozen=True)
class TrainingRange:
    """Scores of the training structures, by structure: what `explain` compares with."""

    names: tuple[str, ...]
    by_structure: dict[str, Floats]
    """``[m, k]``, each column sorted."""

    @classmethod
    def of(cls, names: Sequence[str], training: Observed) -> TrainingRange:
        """Sort the scores of each structure whose Dice was known in the fit."""
        return cls(
            tuple(names),
            {
                name: np.sort(training.scores[training.of_structure(name)], axis=0)
                for name in dict.fromkeys(training.structures)
            },
        )

    def explain(self, rows: Observed) -> list[str]:
        """Return a reason for each row; empty where every score is as in the training.

        A score is a reason where it lies beyond every training structure of this name, or where
        fewer than 5 % of them reach it, on the side that speaks of a poor segmentation; on both
        sides for a score without one, such as a volume. That it has no value is a reason where
        fewer than 5 % of them have none.
        """
        return [
            "not predicted" if absent else self._explain(scores, self.by_structure[structure])
            for scores, structure, absent in zip(
                rows.scores, rows.structures, rows.absent, strict=True
            )
        ]

    def _explain(self, scores: Floats, training: Floats) -> str:
        found = []
        for name, value, column in zip(self.names, scores, training.T, strict=True):
            lacking = np.isnan(column)
            if np.isnan(value):
                if float(lacking.mean()) < RARE:
                    found.append(f"no {name}")
                continue
            column = column[~lacking]
            if not len(column):
                continue
            end = unsure_end(name)
            if end != "low" and (share := float((column >= value).mean())) < RARE:
                found.append(f"{name} {value:.4g} is {_beyond('above', share, column[-1])}")
            elif end != "high" and (share := float((column <= value).mean())) < RARE:
                found.append(f"{name} {value:.4g} is {_beyond('below', share, column[0])}")
        return "; ".join(found)


def _beyond(side: str, share: float, end: float) -> str:
    if share == 0:
        extreme = "largest" if side == "above" else "smallest"
        return f"{side} every one of the training ({extreme} {end:.4g})"
    return f"{side} {100 * (1 - share):.0f} % of the training"
