"""The ensemble pass and the exact calibration counts behind MONAI's interfaces.

- `CalibrationErrorMetric`: `monai.metrics.CalibrationErrorMetric`, and `CalibrationError`, its
  ignite handler.
- `EnsembleUncertainty`, `EnsembleUncertaintyd`: transforms that take what `MeanEnsemble` and
  `MeanEnsembled` take, and give mean, entropy, mutual information and other maps.
- `UncertaintyInferer`: members, or passes with Monte Carlo dropout, through sliding windows,
  and `uncertainty_iteration`, which puts its maps into the output of `SupervisedEvaluator`.
"""

from __future__ import annotations

try:
    import monai as _monai  # noqa: F401
except ImportError as error:
    raise ImportError("fastcal.monai needs MONAI: pip install 'fastcal[train]'") from error

from fastcal.monai.calibration_error import CalibrationErrorMetric
from fastcal.monai.handler import CalibrationError
from fastcal.monai.inferer import UncertaintyInferer
from fastcal.monai.iteration import uncertainty_iteration
from fastcal.monai.transforms import EnsembleUncertainty, EnsembleUncertaintyd

__all__ = [
    "CalibrationError",
    "CalibrationErrorMetric",
    "EnsembleUncertainty",
    "EnsembleUncertaintyd",
    "UncertaintyInferer",
    "uncertainty_iteration",
]
