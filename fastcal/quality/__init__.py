"""Quality of predicted structures without a reference: predicted Dice, intervals, failures."""

from fastcal.quality.evaluation import QualityEvaluation, evaluate_quality
from fastcal.quality.file import load
from fastcal.quality.filtered import FilteredDice, filtered_dice
from fastcal.quality.folders import PredictedQuality, QualityFit, fit_quality, predict_quality
from fastcal.quality.pictures import fit_picture
from fastcal.quality.predictor import QualityPredictor
from fastcal.quality.regressions import Line
from fastcal.scores import (
    MEASURES,
    SEGMENT_SCORES,
    Estimate,
    ScoreTable,
    read_scored,
    read_table,
    score_measures,
)

__all__ = [
    "MEASURES",
    "SEGMENT_SCORES",
    "Estimate",
    "FilteredDice",
    "Line",
    "PredictedQuality",
    "QualityEvaluation",
    "QualityFit",
    "QualityPredictor",
    "ScoreTable",
    "evaluate_quality",
    "filtered_dice",
    "fit_picture",
    "fit_quality",
    "load",
    "predict_quality",
    "read_scored",
    "read_table",
    "score_measures",
]
