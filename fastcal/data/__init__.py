"""Cases, NIfTI files, datasets in nnU-Net's layout, prediction folders and phantoms."""

from fastcal.data.dataset import Case, Dataset, image_cases
from fastcal.data.predictions import PredictionFolder, Probabilities

__all__ = ["Case", "Dataset", "PredictionFolder", "Probabilities", "image_cases"]
