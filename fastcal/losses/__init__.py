"""Training losses."""

from fastcal.losses.segmentation import PaperDiceLoss, WeightedCrossEntropy

__all__ = ["PaperDiceLoss", "WeightedCrossEntropy"]
