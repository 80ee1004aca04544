"""Files of detectors: JSON of settings and of what the training cases measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from fastcal.core.atomic import write_json
from fastcal.core.doors import bounded, one_error, read_json
from fastcal.core.errors import DataError
from fastcal.ood.detector import FEATURES, OODDetector
from fastcal.ood.histogram import MOST_BINS

FORMAT = "fastcal ood detectors"
_LARGEST = 512 << 20
"""Bytes; the features of many networks are large."""


class StoredDetector(BaseModel):
    """A detector; its values are ``[n]``, or features ``[n, M, F]``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    score: str
    false_positive_rate: float
    covariance: Literal["ledoit-wolf", "empirical"]
    values: list[float | None] | list[list[list[float]]]


class StoredDetectors(BaseModel):
    """What a file of detectors holds."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["fastcal ood detectors"]
    version: Literal[1]
    n_bins: int
    structures: list[str] | None
    weights: list[str] | None
    detectors: list[StoredDetector]


@dataclass(frozen=True)
class Detectors:
    """Fitted detectors by score, and how cases are measured for them."""

    by_score: dict[str, OODDetector]
    n_bins: int = 64
    """Bins of intensity histograms."""
    structures: tuple[str, ...] | None = None
    """Structures whose scores are averaged; None for all."""
    weights: tuple[str, ...] | None = None
    """Hashes of the networks whose features were taken."""

    def save(self, path: str | Path) -> None:
        """Write the detectors as JSON, whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        detectors = [
            {
                "score": one.score,
                "false_positive_rate": one.false_positive_rate,
                "covariance": one.covariance,
                "values": one.training_,
            }
            for one in self.by_score.values()
        ]
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": 1,
            "n_bins": self.n_bins,
            "structures": self.structures,
            "weights": self.weights,
            "detectors": detectors,
        }
        write_json(path, content)

    def check_networks(self, digests: tuple[str, ...], source: str | Path) -> None:
        """Raise a `DataError` if networks are not those of the fit."""
        if self.weights is not None and digests != self.weights:
            raise DataError(
                source, "the networks must be those that the detector was fitted with, got others"
            )


def load(path: str | Path) -> Detectors:
    """Read detectors that `Detectors.save` wrote, by fitting them again.

    Raises:
        DataError: The file is missing or damaged, or holds something else.

    Example:
        >>> load("ood.json").by_score["mahalanobis"].threshold_  # doctest: +SKIP
        14.2
    """
    content: StoredDetectors = read_json(path, StoredDetectors, most_bytes=_LARGEST)
    found = {}
    with one_error(path, f"a file of {FORMAT}"):
        for one in content.detectors:
            if one.score in found:
                raise ValueError(f"detectors must be of different scores, got {one.score!r} twice")
            detector = OODDetector(
                one.score,
                false_positive_rate=one.false_positive_rate,
                covariance=one.covariance,
            )
            values = np.array(
                one.values
                if one.score in FEATURES
                else [np.nan if value is None else value for value in one.values],
                np.float64,
            )
            found[one.score] = detector.fit(values)
        if not found:
            raise ValueError("detectors must hold at least one, got none")
        bounded(content.n_bins, "n_bins", MOST_BINS, least=2)
    return Detectors(
        found,
        content.n_bins,
        None if content.structures is None else tuple(content.structures),
        None if content.weights is None else tuple(content.weights),
    )


def detector_files(detectors: Detectors | str | Path) -> list[Path]:
    """Return the file of detectors, where a path is given."""
    return [Path(detectors)] if isinstance(detectors, str | Path) else []


def opened(detectors: Detectors | str | Path) -> Detectors:
    """Return detectors, read from their file where a path is given."""
    return load(detectors) if isinstance(detectors, str | Path) else detectors
