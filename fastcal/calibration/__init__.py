"""Exact calibration statistics: integers that add up, and the metrics read from them."""

from fastcal.calibration.bootstrap import (
    Interval,
    SignedRank,
    bootstrap,
    paired_bootstrap,
    wilcoxon,
)
from fastcal.calibration.brier import BrierParts
from fastcal.calibration.case_curves import case_curves, reliability_band
from fastcal.calibration.conventions import CalibrationKind, ConventionName
from fastcal.calibration.counting import OpenCount
from fastcal.calibration.curves import OutcomeHistogram, Reliability, RiskCoverage
from fastcal.calibration.metrics import METRICS, Measure, Metric, Norm, Reduction
from fastcal.calibration.rows import Kind, Rows
from fastcal.calibration.statistics import CalibrationStatistics
from fastcal.calibration.summary import calibration_summary, region_summaries

__all__ = [
    "METRICS",
    "BrierParts",
    "CalibrationKind",
    "CalibrationStatistics",
    "ConventionName",
    "Interval",
    "Kind",
    "Measure",
    "Metric",
    "Norm",
    "OpenCount",
    "OutcomeHistogram",
    "Reduction",
    "Reliability",
    "RiskCoverage",
    "Rows",
    "SignedRank",
    "bootstrap",
    "calibration_summary",
    "case_curves",
    "paired_bootstrap",
    "region_summaries",
    "reliability_band",
    "wilcoxon",
]
