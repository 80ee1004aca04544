"""Calibrators by the names that the command line has for them."""

from __future__ import annotations

from fastcal.core.problem import Activation
from fastcal.recalibrate.binning import HistogramBinning, IsotonicRegression
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.matrix import DirichletCalibration, VectorScaling
from fastcal.recalibrate.temperature import TemperatureScaling

METHODS = (
    "temperature",
    "temperature-per-class",
    "vector",
    "dirichlet",
    "histogram",
    "isotonic",
)


def make(
    method: str,
    *,
    from_logits: bool,
    activation: Activation,
    multilabel: bool,
    n_bins: int = 15,
    odir: float = 1e-5,
) -> Calibrator:
    """A calibrator, not fitted.

    Raises:
        ValueError: No such method, or one that is not defined for the activation.
    """
    if method == "histogram":
        return HistogramBinning(
            n_bins=n_bins, from_logits=from_logits, activation=activation, multilabel=multilabel
        )
    if method == "dirichlet":
        return DirichletCalibration(
            odir=odir, from_logits=from_logits, activation=activation, multilabel=multilabel
        )
    if method == "temperature-per-class":
        return TemperatureScaling(
            per_class=True, from_logits=from_logits, activation=activation, multilabel=multilabel
        )
    plain: dict[str, type[TemperatureScaling | VectorScaling | IsotonicRegression]] = {
        "temperature": TemperatureScaling,
        "vector": VectorScaling,
        "isotonic": IsotonicRegression,
    }
    if method not in plain:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    return plain[method](from_logits=from_logits, activation=activation, multilabel=multilabel)
