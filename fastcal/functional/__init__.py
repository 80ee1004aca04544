"""One call per number: calibration errors, scores and entropies of tensors at hand.

Argument names are those of torchmetrics. The numbers are fastcal's own unless ``convention`` names
another library. ``preds`` are probabilities; logits need ``from_logits=True``, nothing is guessed.
For more than one volume, more than one number, or intervals over cases, count once into
`fastcal.CalibrationStatistics`. For maps other than entropies see `fastcal.ensemble_statistics`.

Results are float64 scalars or vectors: tensors on the CPU, or NumPy where ``preds`` are NumPy.
"""

from fastcal.functional.entropies import expected_entropy, mutual_information, predictive_entropy
from fastcal.functional.errors import (
    adaptive_calibration_error,
    binary_calibration_error,
    classwise_calibration_error,
    multiclass_calibration_error,
    multilabel_calibration_error,
)
from fastcal.functional.scores import (
    area_under_risk_coverage,
    brier_score,
    confidence_auroc,
    negative_log_likelihood,
)

__all__ = [
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "binary_calibration_error",
    "brier_score",
    "classwise_calibration_error",
    "confidence_auroc",
    "expected_entropy",
    "multiclass_calibration_error",
    "multilabel_calibration_error",
    "mutual_information",
    "negative_log_likelihood",
    "predictive_entropy",
]
