"""From networks, or from saved probabilities, to label maps, uncertainty maps and calibration."""

from fastcal.evaluate.cases import Failure, Progress
from fastcal.models.views import InferenceAugmentation
from fastcal.predict.folders import ensemble_folders
from fastcal.predict.network import predict_cases
from fastcal.predict.shards import MergedStatistics, merge_statistics
from fastcal.predict.summary import PredictionSummary

__all__ = [
    "Failure",
    "InferenceAugmentation",
    "MergedStatistics",
    "PredictionSummary",
    "Progress",
    "ensemble_folders",
    "merge_statistics",
    "predict_cases",
]
