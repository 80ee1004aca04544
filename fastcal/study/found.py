"""Everything that a study found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastcal.report.claims import Sign
    from fastcal.study.comparison import Comparison
    from fastcal.study.lengths import LengthPoint
    from fastcal.study.quality import Coverage, Detector, EntropyFit, Outside
    from fastcal.study.stages import StageTime


@dataclass(frozen=True, slots=True)
class Origin:
    """How results were made."""

    command: str
    software: str
    machine: str


@dataclass(frozen=True)
class Results:
    """What a study found."""

    title: str
    split: tuple[int, int, int]
    outside: str
    """What the cases from outside are; nothing where there are none."""
    members: int
    origin: Origin
    comparison: Comparison
    fits: tuple[EntropyFit, ...]
    """Entropy against logit Dice of single member, dropout and ensemble, by loss."""
    failures: tuple[Detector, ...]
    """Every score of the ensembles as a detector of poor segments, by loss."""
    coverages: tuple[Coverage, ...]
    """Of the conformal intervals of the ensembles, by loss."""
    detections: tuple[Outside, ...]
    """Every detector on every set, of single member and ensemble, by loss."""
    lengths: tuple[LengthPoint, ...]
    signs: tuple[Sign, ...]
    times: tuple[StageTime, ...]
