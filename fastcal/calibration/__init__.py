"""Exact calibration statistics: integers that add up, and the metrics read from them."""

from fastcal.calibration.bootstrap import (
    Interval,
    SignedRank,
    bootstrap,
    paired_bootstrap,
    wilcoxon,
)
from fastcal.calibration.conventions import ConventionName
from fastcal.calibration.curves import OutcomeHistogram, Reliability, RiskCoverage
from fastcal.calibration.measures import (
    CalibrationKind,
    Kind,
    Measure,
    MeasureName,
    Norm,
    Reduction,
)
from fastcal.calibration.statistics import CalibrationStatistics, OpenCount
from fastcal.calibration.values import BrierParts

__all__ = [
    "BrierParts",
    "CalibrationKind",
    "CalibrationStatistics",
    "ConventionName",
    "Interval",
    "Kind",
    "Measure",
    "MeasureName",
    "Norm",
    "OpenCount",
    "OutcomeHistogram",
    "Reduction",
    "Reliability",
    "RiskCoverage",
    "SignedRank",
    "bootstrap",
    "paired_bootstrap",
    "wilcoxon",
]
