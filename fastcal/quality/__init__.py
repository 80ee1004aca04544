"""Quality of predicted structures without a reference: predicted Dice, intervals, failures."""

from fastcal.quality.file import load
from fastcal.quality.predictor import QualityPredictor
from fastcal.quality.regressions import Line
from fastcal.scores import ScoreTable, read_scored, read_table, score_measures

__all__ = [
    "Line",
    "QualityPredictor",
    "ScoreTable",
    "load",
    "read_scored",
    "read_table",
    "score_measures",
]
