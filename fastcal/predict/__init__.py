"""From networks, or from saved probabilities, to label maps, uncertainty maps and calibration."""

from fastcal.cases.loop import Failure, Progress
from fastcal.cases.segment_parts import merge_segments
from fastcal.cases.shards import MergedStatistics, merge_statistics
from fastcal.cases.status import FolderStatus, folder_status
from fastcal.cases.summary import PredictionSummary
from fastcal.models.views import InferenceAugmentation
from fastcal.predict.folders import ensemble_folders
from fastcal.predict.network import predict_cases

__all__ = [
    "Failure",
    "FolderStatus",
    "InferenceAugmentation",
    "MergedStatistics",
    "PredictionSummary",
    "Progress",
    "ensemble_folders",
    "folder_status",
    "merge_segments",
    "merge_statistics",
    "predict_cases",
]
