"""How other libraries bin, clip and report: one row of data each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fastcal.calibration.measures import CalibrationKind
from fastcal.core import bins

ConventionName = Literal[
    "default", "paper", "torchmetrics", "monai", "netcal", "sklearn", "exacta", "fiducio"
]


@dataclass(frozen=True, slots=True)
class Convention:
    """What has to agree for two libraries to give one number."""

    n_bins: int = 15
    """Default of the preset."""
    closed: bins.Closed | None = None
    """None leaves the choice to the user."""
    edges: bins.EdgeRule = "linspace"
    zeros_dropped: bool = False
    """p = 0 falls into no bin, though it counts among the N samples."""
    ones_apart: bool = False
    """p = 1 has a bin of its own behind the others."""
    percent: bool = False
    """Calibration errors are reported in %."""
    clipped: bool = False
    """Probabilities are clipped to [eps, 1 - eps] first, eps that of their type."""
    eps: float | None = None
    """Lower clip inside the NLL; None is the smallest normal number of the type, 0 its eps."""
    calibration: CalibrationKind = "both"
    """Default of the preset."""
    positive: tuple[int, ...] = (1,)
    """Numbers of classes for which `ece` is that of the positive class's probability."""

    @property
    def extra_cells(self) -> int:
        """Histogram cells beside the ``n_bins``."""
        return self.zeros_dropped + self.ones_apart

    def thresholds(self, n_bins: int, closed: bins.Closed) -> tuple[Tensor, Tensor] | None:
        """What a pass compares float32 and float64 probabilities with; None for the default."""
        if self.edges == "linspace" and not self.extra_cells:
            return None
        first, last = [0.0] * self.zeros_dropped, [1.0] * self.ones_apart
        single, double = (
            torch.tensor(
                [*first, *bins.library_thresholds(self.edges, n_bins, real, closed), *last],
                dtype=real,
            )
            for real in (torch.float32, torch.float64)
        )
        return single, double

    def bin_edges(self, n_bins: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Edges for showing; the bin of the ones, where there is one, is [1, 1]."""
        return np.concatenate([bins.edges(n_bins), [1.0] * self.ones_apart])

    def smallest(self, real: torch.dtype) -> float:
        """Lower clip inside the NLL for data of accumulation type ``real``."""
        limits = torch.finfo(real)
        eps = limits.tiny if self.eps is None else self.eps or limits.eps
        return max(eps, limits.tiny)


CONVENTIONS: dict[str, Convention] = {
    "default": Convention(),
    # CalibrationErrors in helpers/metrics.py of the first author's PEP code; bins i/n < p <= i/n
    # + 1/n in the type of the data.
    "paper": Convention(10, "right", zeros_dropped=True, percent=True, eps=1e-15, positive=()),
    # functional/classification/calibration_error.py, torchmetrics 1.9; the bin of 1.0 is #3510.
    "torchmetrics": Convention(15, "left", "torch", ones_apart=True),
    # metrics/calibration.py, MONAI 1.6 (its docstring has the two sides the other way round).
    "monai": Convention(20, "right", "torch32-eps", calibration="classwise"),
    # metrics/Miscalibration.py, netcal 1.4; two classes are treated as binary.
    "netcal": Convention(10, "left", "linspace64", clipped=True, positive=(1, 2)),
    # calibration_curve(strategy="uniform") and log_loss, scikit-learn 1.9.
    "sklearn": Convention(5, "right", "linspace64", eps=0.0),
    # functional/calibration.py, exacta 0.0.1a5.
    "exacta": Convention(15, "left", "floor", positive=()),
    # metrics/calibration.py, fiducio 0.2.
    "fiducio": Convention(15, "right", "torch32", eps=1e-12, positive=()),
}


def find(name: str) -> Convention:
    """The convention of a name.

    Raises:
        ValueError: There is none.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"convention must be one of {tuple(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]
