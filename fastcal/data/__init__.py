"""Cases, NIfTI files, datasets in nnU-Net's layout, prediction folders, and phantoms."""

from fastcal.data.dataset import Case, Dataset, image_cases

__all__ = ["Case", "Dataset", "image_cases"]
