"""What a state of calibration statistics counts: settings, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastcal.calibration import conventions
from fastcal.calibration.conventions import CalibrationKind, Convention, ConventionName
from fastcal.core import bins
from fastcal.core.arguments import flag, real_number, whole_number
from fastcal.core.problem import (
    CALIBRATIONS,
    FINE_OCTAVES,
    Extras,
    StatisticsLayout,
)
from fastcal.core.region_bits import check_names


@dataclass(frozen=True)
class CalibrationSettings:
    """The arguments of `CalibrationStatistics`, which documents them.

    Raises:
        TypeError, ValueError: An argument is not what `CalibrationStatistics` documents.
    """

    num_classes: int
    n_bins: int = 15
    closed: bins.Closed = "right"
    calibration: CalibrationKind = "both"
    multilabel: bool = False
    eps: float | None = None
    convention: ConventionName = "default"
    fine_bins: int = 0
    moments: bool = False
    entropy_bins: int = 0
    regions: tuple[str, ...] = ()

    rules: Convention = field(init=False, repr=False, compare=False)
    """The row of the convention's name."""
    layout: StatisticsLayout = field(init=False, repr=False, compare=False)
    """Where the words of a row lie."""
    edges: tuple[Tensor, Tensor] | None = field(init=False, repr=False, compare=False)
    """The convention's edges for float32 and float64; None for the default ones."""

    def __post_init__(self) -> None:
        """Check every argument, and keep it as the type it is documented with."""
        rules = conventions.find(self.convention)
        num_classes = whole_number(self.num_classes, "num_classes")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        n_bins = bins.check_bins(self.n_bins, self.closed)
        if rules.closed not in (None, self.closed):
            raise ValueError(
                f"closed must be {rules.closed!r} for convention={self.convention!r}, "
                f"got {self.closed!r}"
            )
        if self.calibration not in CALIBRATIONS:
            raise ValueError(f"calibration must be one of {CALIBRATIONS}, got {self.calibration!r}")
        eps = None if self.eps is None else real_number(self.eps, "eps")
        if eps is not None and not 0 < eps < 1:
            raise ValueError(f"eps must lie between 0 and 1, got {eps:g}")
        moments = flag(self.moments, "moments")
        if moments and self.calibration == "top-label":
            raise ValueError(
                "moments must be False with calibration='top-label', which keeps no classwise "
                "bins, got True"
            )
        fine_bins, entropy_bins = _fine_bins(self.fine_bins), _entropy_bins(self.entropy_bins)
        extras = Extras(moments, fine_bins, entropy_bins)
        n_cells = n_bins + rules.extra_cells
        checked: dict[str, Any] = {
            "num_classes": num_classes,
            "n_bins": n_bins,
            "multilabel": flag(self.multilabel, "multilabel") or num_classes == 1,
            "eps": eps,
            "fine_bins": fine_bins,
            "entropy_bins": entropy_bins,
            "regions": check_names(self.regions),
            "rules": rules,
            "layout": StatisticsLayout(num_classes, n_cells, self.calibration, extras),
            "edges": rules.thresholds(n_bins, self.closed),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def rows(self) -> int:
        """Rows of a group: one for everything counted, and one for each region."""
        return 1 + len(self.regions)

    def thresholds(self, real: torch.dtype) -> Tensor:
        """Return the interior bin edges for data of accumulation type ``real``."""
        if self.edges is None:
            return bins.thresholds(self.n_bins, real)
        return self.edges[real == torch.float64]

    def smallest(self, real: torch.dtype, stored: torch.dtype) -> float:
        """Return the lower clip inside the NLL.

        Args:
            real: The accumulation type.
            stored: The type of the probabilities.
        """
        if self.eps is None:
            return self.rules.smallest(real, stored)
        return max(self.eps, torch.finfo(real).tiny)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `CalibrationStatistics`; extras only where there are some."""
        extras = {
            "fine_bins": self.fine_bins,
            "moments": self.moments,
            "entropy_bins": self.entropy_bins,
            "regions": list(self.regions),
        }
        return {
            "num_classes": self.num_classes,
            "n_bins": self.n_bins,
            "closed": self.closed,
            "calibration": self.calibration,
            "multilabel": self.multilabel,
            "eps": self.eps,
            "convention": self.convention,
        } | {name: value for name, value in extras.items() if value}


def first_difference(mine: CalibrationSettings, other: CalibrationSettings) -> str | None:
    """Describe the first setting that differs as ``"n_bins: 15 here, 10 there"``, or None."""
    ours, theirs = mine.arguments(), other.arguments()
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            return f"{name}: {ours.get(name)!r} here, {theirs.get(name)!r} there"
    return None


def _fine_bins(fine_bins: int) -> int:
    number = whole_number(fine_bins, "fine_bins")
    lowest = 2 * FINE_OCTAVES
    if number != 0 and (not lowest <= number <= 1 << 20 or number & (number - 1)):
        raise ValueError(
            f"fine_bins must be 0 or a power of two from {lowest} to {1 << 20}, got {number}"
        )
    return number


def _entropy_bins(entropy_bins: int) -> int:
    number = whole_number(entropy_bins, "entropy_bins")
    if not 0 <= number <= 65536:
        raise ValueError(f"entropy_bins must be between 0 and 65536, got {number}")
    return number
