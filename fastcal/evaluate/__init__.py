"""Scores of predicted label maps and of the probabilities behind them."""

from fastcal.calibration.summary import calibration_summary
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import CaseRun, Failure, Progress, part_of
from fastcal.cases.overlap import overlap
from fastcal.evaluate.folder import evaluate_folder
from fastcal.evaluate.surface import surface_scores

__all__ = [
    "CaseRun",
    "Failure",
    "LabelScheme",
    "Progress",
    "calibration_summary",
    "evaluate_folder",
    "overlap",
    "part_of",
    "surface_scores",
]
