"""Training losses of logits ``[B, C, *S]`` and integer targets ``[B, *S]``; each is a scalar."""

from fastcal.losses.average_calibration import HardL1ACELoss, SoftL1ACELoss
from fastcal.losses.build import AuxiliaryLoss, build_loss
from fastcal.losses.deep_supervision import DeepSupervisionLoss
from fastcal.losses.dice import DiceCELoss, DiceLoss
from fastcal.losses.dice_plus_plus import DicePlusPlusLoss
from fastcal.losses.from_monai import FocalLoss, NACLLoss
from fastcal.losses.margin import MbLSLoss
from fastcal.losses.paper import PaperDiceLoss, WeightedCrossEntropy
from fastcal.losses.smoothing import LabelSmoothingLoss, SVLSLoss

__all__ = [
    "AuxiliaryLoss",
    "DeepSupervisionLoss",
    "DiceCELoss",
    "DiceLoss",
    "DicePlusPlusLoss",
    "FocalLoss",
    "HardL1ACELoss",
    "LabelSmoothingLoss",
    "MbLSLoss",
    "NACLLoss",
    "PaperDiceLoss",
    "SVLSLoss",
    "SoftL1ACELoss",
    "WeightedCrossEntropy",
    "build_loss",
]
