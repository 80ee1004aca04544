"""Scores of predicted structures, and how well they tell quality: what quality and ood share."""

from fastcal.scores.estimates import Draws, Estimate, mean_absolute_error, score_measures
from fastcal.scores.files import read_scored, read_table
from fastcal.scores.measures import MEASURES, Measure
from fastcal.scores.names import SEGMENT_SCORES, SegmentScore, unsure_end
from fastcal.scores.table import ScoreTable

__all__ = [
    "MEASURES",
    "SEGMENT_SCORES",
    "Draws",
    "Estimate",
    "Measure",
    "ScoreTable",
    "SegmentScore",
    "mean_absolute_error",
    "read_scored",
    "read_table",
    "score_measures",
    "unsure_end",
]
