"""Scores of predicted segments: how uncertain each structure of each volume is."""

from fastcal.segments.compute import segment_scores
from fastcal.segments.scores import SCORES, SegmentScores
from fastcal.segments.settings import SegmentSettings, read_settings
from fastcal.segments.stream import SegmentStream

__all__ = [
    "SCORES",
    "SegmentScores",
    "SegmentSettings",
    "SegmentStream",
    "read_settings",
    "segment_scores",
]
