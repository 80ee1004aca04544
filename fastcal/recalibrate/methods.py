"""Calibrators by the names that they have on the command line."""

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
    """Make a calibrator, not yet fitted.

    Args:
        method: One of `METHODS`.
        from_logits: See `Calibrator`.
        activation: See `Calibrator`.
        multilabel: See `Calibrator`.
        n_bins: Number of bins of ``"histogram"``.
        odir: Weight of the penalty of ``"dirichlet"``.

    Raises:
        ValueError: There is no such method, or it is not defined for the activation.
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
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    return plain[method](from_logits=from_logits, activation=activation, multilabel=multilabel)
