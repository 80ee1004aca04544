"""The vocabulary of what can be read from calibration statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fastcal.core.arguments import real_number

CalibrationKind = Literal["both", "top-label", "classwise"]
Reduction = Literal["pooled", "case"]
Kind = Literal["top-label", "positive"]
Norm = Literal["l1", "l2", "max"]
MeasureName = Literal[
    "ece",
    "ace",
    "classwise_ece",
    "classwise_ace",
    "micro_ece",
    "brier",
    "nll",
    "accuracy",
    "dice",
    "volume_bias",
    "adaptive_ece",
    "classwise_adaptive_ece",
    "tace",
    "auroc",
    "classwise_auroc",
    "aurc",
    "e_aurc",
]

NORMS = get_args(Norm)
MEASURES = get_args(MeasureName)
OF_FINE_CLASSES = ("classwise_adaptive_ece", "tace", "classwise_auroc")
OF_CLASSES = ("classwise_ece", "classwise_ace", "dice", "volume_bias", *OF_FINE_CLASSES)
"""Measures that are one number a class."""
FROM_FINE_CELLS = ("adaptive_ece", "auroc", "aurc", "e_aurc", *OF_FINE_CLASSES)
"""Measures that need a ``fine_bins``."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of `CalibrationStatistics` with its options, as one number.

    Args:
        name: The method's name.
        norm: Of the calibration errors: ``"l1"``, ``"l2"`` or ``"max"``.
        debias: Subtract what the noise of the bins' accuracies adds (``norm="l2"`` alone).
        min_count: Leave out bins with this many samples or fewer.
        kind: ``"top-label"`` or ``"positive"``; None for what suits the data.
        class_index: For one number a class: which; None for the mean over those defined.
        threshold: Of ``"classwise_adaptive_ece"`` and ``"tace"``: smaller probabilities are left
            out. None is 0, or 0.01 for ``"tace"``.

    Raises:
        ValueError: An option is unknown, or does not go with the others.

    Example:
        >>> Measure("classwise_ece", norm="max", class_index=2).of_classes
        True
    """

    name: MeasureName = "ece"
    norm: Norm = "l1"
    debias: bool = False
    min_count: int = 0
    kind: Kind | None = None
    class_index: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.name not in MEASURES:
            raise ValueError(f"measure must be one of {MEASURES}, got {self.name!r}")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {self.norm!r}")
        if self.debias and self.norm != "l2":
            raise ValueError(f"debias=True is defined for norm='l2', got norm={self.norm!r}")
        if self.min_count < 0:
            raise ValueError(f"min_count must not be negative, got {self.min_count}")
        if self.kind not in (None, *get_args(Kind)):
            raise ValueError(f"kind must be 'top-label' or 'positive', got {self.kind!r}")
        if self.class_index is not None and not self.of_classes:
            raise ValueError(f"class_index is not for {self.name!r}, which is one number")
        if self.threshold is not None:
            if self.name not in ("classwise_adaptive_ece", "tace"):
                raise ValueError(f"threshold is not for {self.name!r}")
            if not 0 <= real_number(self.threshold, "threshold") <= 1:
                raise ValueError(f"threshold must lie in [0, 1], got {self.threshold:g}")

    @property
    def of_classes(self) -> bool:
        """One number a class."""
        return self.name in OF_CLASSES

    @property
    def of_fine_classes(self) -> bool:
        """One number a class, from its fine cells."""
        return self.name in OF_FINE_CLASSES

    @property
    def lowest(self) -> float:
        """The threshold, or its default."""
        if self.threshold is not None:
            return self.threshold
        return 0.01 if self.name == "tace" else 0.0
