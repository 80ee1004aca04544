"""Calibrators of logits: temperature, vector and Dirichlet scaling."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastcal.recalibrate.calibrator import Calibrator, Stream, numbers
from fastcal.recalibrate.linear import (
    DirichletMap,
    LinearMap,
    LinearSums,
    ScaleMap,
    VectorMap,
    linear_pass,
)
from fastcal.recalibrate.newton import COLDEST, HOTTEST, Fit, fit_linear, fit_temperature
from fastcal.recalibrate.sample import Sample, Sampler
from fastcal.recalibrate.temperature_pass import TemperatureSums, temperature_pass
from fastcal.recalibrate.volumes import Activation

Floats = npt.NDArray[np.float64]


class LogitScaling(Calibrator):
    """What the calibrators of logits have in common: the passes of a fit, and what they report."""

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

    def _fit_linear(self, stream: Stream, model: LinearMap, penalty: Tensor) -> Tensor:
        def first(theta: Tensor) -> tuple[LinearSums, Sample]:
            sampler, sums = Sampler(), _nothing(model)
            for volume in stream:
                sums = sums + linear_pass(volume, model, theta)
                sampler.add(volume)
            return sums, sampler.close(model.num_classes)

        def again(theta: Tensor) -> LinearSums:
            sums = _nothing(model)
            for volume in stream:
                sums = sums + linear_pass(volume, model, theta)
            return sums

        fit = fit_linear(model, penalty, first, again, self.max_passes)
        self._report(fit)
        return fit.theta


class TemperatureScaling(LogitScaling):
    """Logits divided by a temperature: ``softmax(z / T)`` (Guo et al., ICML 2017).

    With ``per_class=True`` each class has its own: ``softmax(z_k / T_k)``. The negative
    log-likelihood is convex in 1 / T and is minimised by Newton's method.

    Args:
        per_class: One temperature a class.
        ridge: For ``per_class``, weight of ``sum (1 / T_k - 1)^2 / 2``, nats a voxel, which keeps
            the temperature of a class that the data say nothing of at 1.
        max_passes: Readings of the data at most; a warning says where they did not suffice.
        from_logits: See `Calibrator`, as for ``activation``, ``multilabel`` and ``eps``.

    Attributes:
        temperature_: float, or float64 ``[C]``.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(1, 3, 20000, generator=generator)
        >>> y = torch.multinomial(z[0].softmax(0).T, 1, generator=generator).T
        >>> calibrator = TemperatureScaling().fit(3 * z, y)
        >>> round(calibrator.temperature_, 1)
        3.0
    """

    kind = "temperature"

    def __init__(
        self,
        *,
        per_class: bool = False,
        ridge: float = 1e-6,
        max_passes: int = 20,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        eps: float | None = None,
    ) -> None:
        super().__init__(
            from_logits=from_logits,
            activation=activation,
            multilabel=multilabel,
            eps=eps,
            max_passes=max_passes,
        )
        if not isinstance(per_class, bool):
            raise TypeError(f"per_class must be True or False, got {per_class!r}")
        self.per_class = per_class
        self.ridge = not_negative(ridge, "ridge")
        self._temperature: Tensor | None = None

    @property
    def temperature_(self) -> float | Floats:
        """T, or one a class ``[C]``; a ValueError before the fit."""
        self._fitted()
        assert self._temperature is not None
        return self._temperature.numpy() if self.per_class else float(self._temperature)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "per_class": self.per_class, "ridge": self.ridge}

    def _fit(self, stream: Stream) -> None:
        if not self.per_class:
            fit = fit_temperature(
                lambda: _temperature_start(stream),
                lambda b: _temperature_sums(stream, b),
                self.max_passes,
            )
            self._report(fit)
            self._temperature = 1 / fit.theta
            return
        model = ScaleMap(stream.num_classes)
        penalty = torch.full((stream.num_classes,), self.ridge, dtype=torch.float64)
        theta = self._fit_linear(stream, model, penalty)
        bounded = theta.clamp(1 / HOTTEST, 1 / COLDEST)
        self._temperature = 1 / bounded
        if not torch.equal(theta, bounded):
            outside = (theta != bounded).nonzero()[:, 0].tolist()
            warnings.warn(
                f"temperatures of classes {outside} stopped at a bound of {COLDEST:g} to "
                f"{HOTTEST:g}: the data say too little of them",
                stacklevel=4,
            )

    def _logits(self, z: Tensor) -> Tensor:
        assert self._temperature is not None
        return z / self._temperature.to(z.device)[:, None]

    def _state(self) -> dict[str, Any]:
        found = self.temperature_
        return {"temperature": found if isinstance(found, float) else found.tolist()}

    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        found = numbers(state, "temperature", (num_classes,) if self.per_class else ())
        if not bool((found > 0).all()):
            raise ValueError("temperature must be positive")
        self._temperature = found.reshape(-1)


class VectorScaling(LogitScaling):
    """A weight and a bias for each class: ``softmax(w_k z_k + b_k)`` (Guo et al., ICML 2017).

    With ``multilabel`` this is Platt scaling of each class.

    Args:
        ridge: Weight of ``sum ((w - 1)^2 + b^2) / 2``, nats a voxel: a class absent from the data
            does not run off to minus infinity.
        max_passes: Readings of the data at most; a warning says where they did not suffice.
        from_logits: See `Calibrator`, as for ``activation``, ``multilabel`` and ``eps``.

    Attributes:
        weight_, bias_: float64 ``[C]``.
    """

    kind = "vector"

    def __init__(
        self,
        *,
        ridge: float = 1e-6,
        max_passes: int = 20,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        eps: float | None = None,
    ) -> None:
        super().__init__(
            from_logits=from_logits,
            activation=activation,
            multilabel=multilabel,
            eps=eps,
            max_passes=max_passes,
        )
        self.ridge = not_negative(ridge, "ridge")
        self._theta: Tensor | None = None

    @property
    def weight_(self) -> Floats:
        return self._halves()[0].numpy()

    @property
    def bias_(self) -> Floats:
        return self._halves()[1].numpy()

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "ridge": self.ridge}

    def _halves(self) -> Tensor:
        self._fitted()
        assert self._theta is not None
        return self._theta.view(2, -1)

    def _fit(self, stream: Stream) -> None:
        model = VectorMap(stream.num_classes)
        penalty = torch.full((2 * stream.num_classes,), self.ridge, dtype=torch.float64)
        self._theta = self._fit_linear(stream, model, penalty)

    def _logits(self, z: Tensor) -> Tensor:
        assert self._theta is not None
        return VectorMap(len(z)).forward(self._theta.to(z.device), z)

    def _state(self) -> dict[str, Any]:
        return {"weight": self.weight_.tolist(), "bias": self.bias_.tolist()}

    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        shape = (num_classes,)
        self._theta = torch.cat([numbers(state, name, shape) for name in ("weight", "bias")])


class DirichletCalibration(LogitScaling):
    """``softmax(W ln p + b)`` with ODIR (Kull et al., NeurIPS 2019).

    The off-diagonal weights and the bias are held near 0: to the mean negative log-likelihood is
    added ``odir / (C (C - 1)) * sum_{i != j} W_ij^2 + bias_penalty / C * sum_j b_j^2``. On logits,
    ``ln p`` is their log-softmax.

    Args:
        odir: Weight of the off-diagonal penalty (lambda in the paper, which picks it by cross
            validation).
        bias_penalty: Weight of the penalty on the bias (mu); that of ``odir`` where None.
        max_passes: Readings of the data at most; a warning says where they did not suffice.
        from_logits: See `Calibrator`, as for ``eps``. It is defined for softmax alone.

    Attributes:
        weight_: float64 ``[C, C]``.
        bias_: float64 ``[C]``.
    """

    kind = "dirichlet"

    def __init__(
        self,
        *,
        odir: float = 1e-5,
        bias_penalty: float | None = None,
        max_passes: int = 20,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        eps: float | None = None,
    ) -> None:
        super().__init__(
            from_logits=from_logits,
            activation=activation,
            multilabel=multilabel,
            eps=eps,
            max_passes=max_passes,
        )
        if self.reading.bernoulli:
            raise ValueError(
                "Dirichlet calibration is for softmax of exclusive classes: use VectorScaling for "
                "sigmoids"
            )
        self.odir = not_negative(odir, "odir")
        self.bias_penalty = (
            None if bias_penalty is None else not_negative(bias_penalty, "bias_penalty")
        )
        self._theta: Tensor | None = None

    @property
    def weight_(self) -> Floats:
        return self._rows()[:, :-1].numpy()

    @property
    def bias_(self) -> Floats:
        return self._rows()[:, -1].numpy()

    def settings(self) -> dict[str, Any]:
        own = {"odir": self.odir, "bias_penalty": self.bias_penalty}
        return {**super().settings(), **own}

    def _rows(self) -> Tensor:
        number = self._fitted()
        assert self._theta is not None
        return self._theta.view(number, number + 1)

    def _fit(self, stream: Stream) -> None:
        number = stream.num_classes
        mu = self.odir if self.bias_penalty is None else self.bias_penalty
        off_diagonal = 1 - torch.eye(number, dtype=torch.float64)
        penalty = torch.cat(
            [
                2 * self.odir / (number * (number - 1)) * off_diagonal,
                torch.full((number, 1), 2 * mu / number, dtype=torch.float64),
            ],
            1,
        ).flatten()
        self._theta = self._fit_linear(stream, DirichletMap(number), penalty)

    def _logits(self, z: Tensor) -> Tensor:
        assert self._theta is not None
        model = DirichletMap(len(z))
        return model.forward(self._theta.to(z.device), model.features(z))

    def _state(self) -> dict[str, Any]:
        return {"weight": self.weight_.tolist(), "bias": self.bias_.tolist()}

    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        weight = numbers(state, "weight", (num_classes, num_classes))
        bias = numbers(state, "bias", (num_classes,))
        self._theta = torch.cat([weight, bias[:, None]], 1).flatten()


def not_negative(value: float, name: str) -> float:
    """``value`` as a float; a ValueError where it is negative, infinite or no number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e300:
        raise ValueError(f"{name} must be a number from 0, got {value!r}")
    return float(value)


def _nothing(model: LinearMap) -> LinearSums:
    return LinearSums(0, 0.0, torch.zeros_like(model.identity()))


def _temperature_start(stream: Stream) -> tuple[TemperatureSums, Sample]:
    sampler, sums = Sampler(), TemperatureSums()
    for volume in stream:
        sums = sums + temperature_pass(volume, 1.0)
        sampler.add(volume)
    return sums, sampler.close(stream.num_classes)


def _temperature_sums(stream: Stream, inverse_temperature: float) -> TemperatureSums:
    sums = TemperatureSums()
    for volume in stream:
        sums = sums + temperature_pass(volume, inverse_temperature)
    return sums
