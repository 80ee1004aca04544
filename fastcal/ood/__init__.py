"""Detection of cases out of distribution: scores, thresholds, how well they tell cases apart."""

from fastcal.ood.detector import SCORES, OODDetector, Verdict, unlike_end
from fastcal.ood.evaluation import evaluate_ood, ood_measures
from fastcal.ood.file import Detectors, load
from fastcal.ood.folders import JudgedCase, fit_ood, predict_ood
from fastcal.ood.histogram import intensity_histogram
from fastcal.ood.measured import CaseFolder
from fastcal.scores import Estimate

__all__ = [
    "SCORES",
    "CaseFolder",
    "Detectors",
    "Estimate",
    "JudgedCase",
    "OODDetector",
    "Verdict",
    "evaluate_ood",
    "fit_ood",
    "intensity_histogram",
    "load",
    "ood_measures",
    "predict_ood",
    "unlike_end",
]
