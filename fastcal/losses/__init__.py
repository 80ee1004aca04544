"""Training losses: of logits ``[B, C, *S]`` and integer targets ``[B, *S]``, each a scalar."""

from fastcal.losses.average_calibration import HardL1ACELoss, SoftL1ACELoss
from fastcal.losses.from_monai import DiceCELoss, DiceLoss, FocalLoss, NACLLoss
from fastcal.losses.segmentation import PaperDiceLoss, WeightedCrossEntropy
from fastcal.losses.smoothing import LabelSmoothingLoss, SVLSLoss

__all__ = [
    "DiceCELoss",
    "DiceLoss",
    "FocalLoss",
    "HardL1ACELoss",
    "LabelSmoothingLoss",
    "NACLLoss",
    "PaperDiceLoss",
    "SVLSLoss",
    "SoftL1ACELoss",
    "WeightedCrossEntropy",
]
