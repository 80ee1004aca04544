"""What the calibrators of logits have in common: the passes of a fit, and what they report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastcal.core.problem import Activation
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.linear import LinearMap, LinearSums, linear_pass, total
from fastcal.recalibrate.newton import Fit, LinearStart, fit_linear
from fastcal.recalibrate.sample import Sampler
from fastcal.recalibrate.stream import Stream
from fastcal.recalibrate.volumes import FitVolume

Floats = npt.NDArray[np.float64]


class LogitScaling(Calibrator):
    """A `Calibrator` that gives new logits; its fit minimises the negative log-likelihood."""

    def __init__(
        self,
        *,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        eps: float | None = None,
        max_passes: int = 20,
    ) -> None:
        super().__init__(
            from_logits=from_logits, activation=activation, multilabel=multilabel, eps=eps
        )
        if not isinstance(max_passes, int) or max_passes < 2:
            raise ValueError(f"max_passes must be at least 2, got {max_passes!r}")
        self.max_passes = max_passes
        self.n_passes_: int | None = None
        """Times that the data were read; None for a calibrator from a file."""
        self.nll_before_: float | None = None
        """Mean negative log-likelihood of the data as they came, nats a voxel."""
        self.nll_: float | None = None
        """The same after the fit (as of the last pass, a step of no weight before the end)."""
        self.n_voxels_: int | None = None
        """Voxels fitted to."""

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "max_passes": self.max_passes}

    @abstractmethod
    def _logits(self, z: Tensor) -> Tensor:
        """New logits [C, n]."""

    def _transform(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        reading = self.reading
        return reading.activated(self._logits(reading.logits(values, dtype)))

    def _report(self, fit: Fit) -> None:
        self.n_passes_, self.n_voxels_ = fit.n_passes, fit.n_voxels
        self.nll_before_, self.nll_ = fit.loss_before, fit.loss

    def _fit_linear(
        self,
        stream: Stream,
        build: Callable[[int], tuple[LinearMap, Tensor]],
        read: Callable[[FitVolume, LinearMap, Tensor], LinearSums] = linear_pass,
        *,
        sparse: bool = False,
    ) -> Tensor:
        """Parameters of the map that ``build`` makes for a number of classes, with its penalty.

        ``read`` is the pass over a volume; where it gives Hessians the sample may be sparse.
        """

        def first() -> LinearStart:
            sampler = Sampler(sparse=sparse)
            sums: LinearSums | None = None
            for volume in stream:
                if sums is None:
                    model, penalty = build(volume.num_classes)
                found = read(volume, model, model.identity())
                sums = found if sums is None else sums + found
                sampler.add(volume)
            number = stream.num_classes
            assert sums is not None
            return LinearStart(model, penalty, sums, sampler.close(number))

        def again(model: LinearMap, theta: Tensor) -> LinearSums:
            return total(read(volume, model, theta) for volume in stream)

        fit = fit_linear(first, again, self.max_passes)
        self._report(fit)
        return fit.theta


def not_negative(value: float, name: str) -> float:
    """``value`` as a float; a ValueError where it is negative, infinite or no number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e300:
        raise ValueError(f"{name} must be a number from 0, got {value!r}")
    return float(value)
