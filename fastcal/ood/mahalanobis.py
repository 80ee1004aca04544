"""Mahalanobis distance of features from those of the training cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastcal.core.arrays import Floats

Covariance = Literal["ledoit-wolf", "empirical"]
COVARIANCES: tuple[Covariance, ...] = ("ledoit-wolf", "empirical")

FOLDS = 5
"""Parts of the training cases, each measured by the covariance of the others."""


@dataclass(frozen=True)
class Mahalanobis:
    """A mean and a covariance for each of M networks; distances are averaged over them."""

    estimates: tuple[tuple[Any, Any], ...]
    """For each network, what standardises its features, and their covariance."""

    @classmethod
    def fit(cls, features: Floats, covariance: Covariance) -> Mahalanobis:
        """Estimate from features ``[n, M, F]``.

        Raises:
            ImportError: scikit-learn is not installed.
            ValueError: An empirical covariance has no inverse, or there is only one case.
        """
        return cls(
            tuple(_estimate(features[:, member], covariance) for member in range(features.shape[1]))
        )

    def distances(self, features: Floats) -> Floats:
        """Return the distance of each case ``[n]`` of features ``[n, M, F]``."""
        found = [
            np.sqrt(estimate.mahalanobis(scaler.transform(features[:, member])))
            for member, (scaler, estimate) in enumerate(self.estimates)
        ]
        mean: Floats = np.mean(found, axis=0)
        return mean


def held_out_distances(features: Floats, covariance: Covariance) -> Floats:
    """Return distances of cases ``[n]``, each by the estimate of the folds without it."""
    from sklearn.model_selection import KFold

    found = np.empty(len(features))
    folds = KFold(min(FOLDS, len(features)), shuffle=True, random_state=0)
    for others, held_out in folds.split(features):
        estimate = Mahalanobis.fit(features[others], covariance)
        found[held_out] = estimate.distances(features[held_out])
    return found


def _estimate(features: Floats, covariance: Covariance) -> tuple[Any, Any]:
    try:
        from sklearn.covariance import EmpiricalCovariance, LedoitWolf
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "distances of features need scikit-learn: pip install 'fastcal[quality]'"
        ) from error

    n, width = features.shape
    if n < 2:
        raise ValueError(f"values must be of at least 2 cases for a covariance, got {n}")
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    if covariance == "ledoit-wolf":
        return scaler, LedoitWolf().fit(scaled)
    if np.linalg.matrix_rank(scaled) < width:
        raise ValueError(
            f"covariance must be 'ledoit-wolf' for {n} cases of {width} features, some of which "
            "depend on others, got 'empirical'"
        )
    return scaler, EmpiricalCovariance().fit(scaled)
