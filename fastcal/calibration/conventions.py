"""How other libraries bin, clip and report: one row of data for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fastcal.core import bins

CalibrationKind = Literal["both", "top-label", "classwise"]
"""Which bins are kept: one of `fastcal.core.problem.CALIBRATIONS`."""

ConventionName = Literal[
    "default", "paper", "torchmetrics", "monai", "netcal", "sklearn", "exacta", "fiducio"
]


@dataclass(frozen=True, slots=True)
class Convention:
    """The choices that must agree for two libraries to give the same number."""

    n_bins: int = 15
    """Default of `CalibrationStatistics.preset`."""
    closed: bins.Closed | None = None
    """Which side of a bin belongs to it. None leaves the choice to the user."""
    edges: bins.EdgeRule = "linspace"
    """How the interior edges are computed."""
    zeros_dropped: bool = False
    """A probability of 0 falls into no bin, but counts among the N samples."""
    ones_apart: bool = False
    """A probability of 1 has a bin of its own, behind the others."""
    percent: bool = False
    """Calibration errors are reported in per cent."""
    clipped: bool = False
    """Probabilities are clipped to [eps, 1 - eps] first, with the eps of their type."""
    eps: float | None = None
    """Lower clip inside the NLL. None is the smallest normal number of the accumulation type, 0 the
    eps of the type that the probabilities have."""
    calibration: CalibrationKind = "both"
    """Default of `CalibrationStatistics.preset`."""
    positive: tuple[int, ...] = (1,)
    """Numbers of classes for which `ece` is the error of the positive class's probability."""

    @property
    def extra_cells(self) -> int:
        """Cells of a histogram in addition to the ``n_bins``."""
        return self.zeros_dropped + self.ones_apart

    def thresholds(self, n_bins: int, closed: bins.Closed) -> tuple[Tensor, Tensor] | None:
        """Edges that float32 and float64 probabilities are compared with; None for the default."""
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
        """Edges to draw; the bin of the ones, where there is one, is [1, 1]."""
        return np.concatenate([bins.edges(n_bins), [1.0] * self.ones_apart])

    def smallest(self, real: torch.dtype, stored: torch.dtype) -> float:
        """Lower clip inside the NLL for accumulation in ``real`` of numbers of type ``stored``."""
        tiny = torch.finfo(real).tiny
        eps = tiny if self.eps is None else self.eps or torch.finfo(stored).eps
        return max(eps, tiny)


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
    """Return the convention of a name.

    Raises:
        ValueError: There is no such convention.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"convention must be one of {tuple(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]
