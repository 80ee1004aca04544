"""Public datasets, as they are downloaded, become datasets in nnU-Net's raw layout."""

from fastcal.convert.run import Conversion, convert_dataset
from fastcal.convert.sets import SETS

__all__ = ["SETS", "Conversion", "convert_dataset"]
