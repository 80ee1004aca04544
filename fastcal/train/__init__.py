"""Training of networks and ensembles."""

from fastcal.train.config import TrainConfig
from fastcal.train.ensemble import train_ensemble
from fastcal.train.splits import Split, resolve_split

__all__ = ["Split", "TrainConfig", "resolve_split", "train_ensemble"]
