"""Detection of cases that are unlike those that a network was made for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcal.core.arguments import choice, real_number
from fastcal.core.arrays import Floats
from fastcal.ood.mahalanobis import COVARIANCES, Covariance, Mahalanobis, held_out_distances
from fastcal.scores import SEGMENT_SCORES, unsure_end

FEATURES: Mapping[str, str] = {
    "histogram": "Distance of the histogram of the image's intensities from the training cases'.",
    "mahalanobis": "Distance of the networks' deepest features from the training cases'.",
}
"""Scores that are distances of features, with their meaning. High values are unlike."""

OodScore = Literal["histogram", "mahalanobis"] | str
SCORES: tuple[str, ...] = (
    *(name for name, score in SEGMENT_SCORES.items() if score.unsure is not None),
    *FEATURES,
)
"""Scores that a detector may use."""


def unlike_end(score: str) -> Literal["high", "low"]:
    """Which values of a score speak of a case that is unlike the training cases.

    Example:
        >>> unlike_end("binary_entropy"), unlike_end("pairwise_dice"), unlike_end("mahalanobis")
        ('high', 'low', 'high')
    """
    return "high" if score in FEATURES else unsure_end(score) or "high"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a detector says of cases; each array is ``[n]``."""

    score: Floats
    """The score of each case, as it is defined: low values may be the unlike ones."""
    p_value: Floats
    """Share of training cases, this one added, that are at least as unlike."""
    flagged: NDArray[np.bool_]
    """Whether the score lies beyond the threshold."""


class OODDetector:
    """One score of cases, with a threshold at a wanted false-positive rate.

    The threshold is an order statistic of the training cases' scores, so that a further case like
    them is flagged with at most the wanted probability. Distances of features are compared with
    those of training cases that the covariance has not seen (five folds): the distances of cases
    that it was estimated from are too small. A case without a score, because no structure was
    predicted, counts as the most unlike.

    Args:
        score: ``"binary_entropy"`` (the paper's), another score of segments that has a direction,
            ``"histogram"`` or ``"mahalanobis"``.
        false_positive_rate: Share of cases like the training cases that may be flagged.
        covariance: ``"ledoit-wolf"`` or ``"empirical"``, of features; the latter needs more cases
            than features.

    Raises:
        TypeError, ValueError: An argument is out of range.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020 (segment entropy); Lee et al., NeurIPS 2018
    (Mahalanobis distance); Vasiliuk et al., MELBA 2023 (intensity histogram).

    Example:
        >>> detector = OODDetector("binary_entropy", false_positive_rate=0.25)
        >>> detector.fit([0.10, 0.12, 0.08]).threshold_
        0.12
        >>> detector.predict([0.11, 0.31])
        array([False,  True])
    """

    def __init__(
        self,
        score: OodScore = "binary_entropy",
        *,
        false_positive_rate: float = 0.05,
        covariance: Covariance = "ledoit-wolf",
    ) -> None:
        choice(score, "score", SCORES)
        choice(covariance, "covariance", COVARIANCES)
        if not 0 < real_number(false_positive_rate, "false_positive_rate") < 1:
            raise ValueError(
                f"false_positive_rate must lie between 0 and 1, got {false_positive_rate:g}"
            )
        self.score = score
        self.false_positive_rate = float(false_positive_rate)
        self.covariance: Covariance = covariance

    def fit(self, values: Any) -> OODDetector:
        """Set the threshold by cases like those that the network was made for.

        Args:
            values: Scores ``[n]``, NaN where no structure was predicted; or features ``[n, F]``,
                or ``[n, M, F]`` of M networks, whose distances are averaged.

        Returns:
            The detector itself.

        Raises:
            ValueError: They do not fit the score, or there are too few cases for the rate.
        """
        found = self._values(values)
        needed = math.ceil(1 / self.false_positive_rate - 1 - 1e-9)
        if len(found) < needed:
            raise ValueError(
                f"values must be of at least {needed} cases for a false-positive rate of "
                f"{self.false_positive_rate:g}, got {len(found)}"
            )
        if np.isnan(found).all():
            raise ValueError(f"values must hold scores, got NaN for all {len(found)} cases")
        self.training_ = found
        self.distances_: Mahalanobis | None = None
        if self.score in FEATURES:
            self.distances_ = Mahalanobis.fit(found, self.covariance)
            held_out = held_out_distances(found, self.covariance)
        else:
            held_out = self._turned(found)
        self.unlikeness_ = np.sort(held_out)
        rank = math.ceil((1 - self.false_positive_rate) * (len(found) + 1) - 1e-9)
        limit = float(self.unlikeness_[rank - 1])
        self.threshold_ = limit if unlike_end(self.score) == "high" else -limit
        return self

    def scores(self, values: Any) -> Floats:
        """Return the score of each case ``[n]``: the values themselves, or their distances."""
        self._check_fitted()
        found = self._values(values)
        if self.distances_ is None:
            return found
        if found.shape[1:] != self.training_.shape[1:]:
            raise ValueError(
                f"values must be of {self._shape(self.training_)}, as in the fit, got "
                f"{self._shape(found)}"
            )
        return self.distances_.distances(found)

    def predict(self, values: Any) -> NDArray[np.bool_]:
        """Return whether each case is flagged ``[n]``."""
        return self.judge(values).flagged

    def judge(self, values: Any) -> Verdict:
        """Return score, p-value and flag of each case.

        Args:
            values: As in `fit`.

        Raises:
            ValueError: It is not fitted, or the values do not fit the score.
        """
        scores = self.scores(values)
        unlike = self._turned(scores)
        at_least = len(self.unlikeness_) - np.searchsorted(self.unlikeness_, unlike, side="left")
        limit = self._turned(np.array([self.threshold_]))[0]
        return Verdict(
            scores, (1 + at_least) / (1 + len(self.unlikeness_)), np.asarray(unlike > limit, bool)
        )

    def unlikeness(self, values: Any) -> Floats:
        """Return the scores ``[n]`` turned so that high is unlike; infinity without a score."""
        return self._turned(self.scores(values))

    def _turned(self, scores: Floats) -> Floats:
        turned = scores if unlike_end(self.score) == "high" else -scores
        return np.where(np.isnan(turned), np.inf, turned)

    def _values(self, values: Any) -> Floats:
        found = np.asarray(values)
        axes = (2, 3) if self.score in FEATURES else (1,)
        if found.dtype.kind not in "fiu" or found.ndim not in axes or found.size == 0:
            wanted = "[n, F] or [n, M, F]" if self.score in FEATURES else "[n]"
            raise ValueError(
                f"values must be numbers {wanted} for the score {self.score!r}, got "
                f"{found.dtype} of shape {found.shape}"
            )
        found = found.astype(np.float64)
        if self.score in FEATURES:
            if not np.isfinite(found).all():
                raise ValueError("values must be finite features, got NaN or infinity")
            return found.reshape(len(found), -1, found.shape[-1])
        if np.isinf(found).any():
            raise ValueError("values must be finite or NaN, got infinity")
        return found

    @staticmethod
    def _shape(values: Floats) -> str:
        return f"{values.shape[1]} networks with {values.shape[2]} features"

    def _check_fitted(self) -> None:
        if not hasattr(self, "threshold_"):
            raise ValueError("the detector is not fitted yet: call fit first")

    def __repr__(self) -> str:
        return f"OODDetector({self.score!r}, false_positive_rate={self.false_positive_rate:g})"
