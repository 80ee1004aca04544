"""Temperature scaling: logits divided by one temperature, or by one temperature per class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcal.core.arrays import Floats
from fastcal.core.problem import Activation
from fastcal.recalibrate.calibrator import numbers
from fastcal.recalibrate.linear import LinearMap, LinearSums, ScaleMap
from fastcal.recalibrate.newton import COLDEST, HOTTEST, fit_temperature
from fastcal.recalibrate.sample import Sample, Sampler
from fastcal.recalibrate.scaling import LogitScaling, not_negative
from fastcal.recalibrate.stream import Stream
from fastcal.recalibrate.temperature_pass import temperature_pass
from fastcal.recalibrate.volumes import FitVolume


class TemperatureScaling(LogitScaling):
    """Temperature scaling: logits are divided by a temperature, ``softmax(z / T)``.

    With ``per_class=True``, each class has its own temperature: ``softmax(z_k / T_k)``. The
    negative log-likelihood is convex in 1 / T and is minimised by Newton's method.

    Args:
        per_class: Fit one temperature per class.
        ridge: For ``per_class``, weight of the penalty ``sum (1 / T_k - 1)^2 / 2`` in nats per
            voxel. It keeps the temperature of a class at 1 if the data do not determine it.
        max_passes: The most passes over the data. If they do not suffice, there is a warning.
        from_logits: See `Calibrator`.
        activation: See `Calibrator`.
        multilabel: See `Calibrator`.
        eps: See `Calibrator`.

    Raises:
        TypeError, ValueError: An argument is out of range.

    Source: Guo et al., ICML 2017.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(1, 3, 20000, generator=generator)
        >>> y = torch.multinomial(z[0].softmax(0).T, 1, generator=generator).T
        >>> calibrator = TemperatureScaling().fit(3 * z, y)
        >>> round(calibrator.temperature_, 2)
        2.95
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
        """T as a float, or one T per class as float64 ``[C]``; a ValueError before the fit."""
        self._fitted()
        assert self._temperature is not None
        return self._temperature.numpy() if self.per_class else float(self._temperature)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that it was made with."""
        return {**super().settings(), "per_class": self.per_class, "ridge": self.ridge}

    def _fit(self, stream: Stream) -> None:
        if not self.per_class:
            fit = fit_temperature(
                lambda: _temperature_start(stream),
                lambda b: stream.sum(_At(b)),
                self.max_passes,
            )
            self._report(fit)
            self._temperature = 1 / fit.theta
            return

        theta = self._fit_linear(stream, self._build, _per_class_pass, sparse=True)
        bounded = theta.clamp(1 / HOTTEST, 1 / COLDEST)
        self._temperature = 1 / bounded
        if not torch.equal(theta, bounded):
            outside = (theta != bounded).nonzero()[:, 0].tolist()
            warnings.warn(
                f"temperatures of classes {outside} stopped at a bound of the range {COLDEST:g} to "
                f"{HOTTEST:g}, because the data do not determine them",
                stacklevel=4,
            )

    def _build(self, number: int) -> tuple[ScaleMap, Tensor]:
        return ScaleMap(number), torch.full((number,), self.ridge, dtype=torch.float64)

    def _logits(self, z: Tensor) -> Tensor:
        assert self._temperature is not None
        return z / self._temperature.to(z.device)[:, None]

    def _parameters(self) -> list[tuple[str, str]]:
        found = self.temperature_
        each = [found] if isinstance(found, float) else found.tolist()
        return [("T", ", ".join(f"{one:.4g}" for one in each))]

    def _state(self) -> dict[str, Any]:
        found = self.temperature_
        return {"temperature": found if isinstance(found, float) else found.tolist()}

    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        found = numbers(state, "temperature", (num_classes,) if self.per_class else ())
        if not bool((found > 0).all()):
            raise ValueError(f"temperature must be positive, got {found.tolist()}")
        self._temperature = found.reshape(-1)


@dataclass(frozen=True, slots=True)
class _At:
    """The pass over a volume at one inverse temperature."""

    b: float

    def __call__(self, number: int, volume: FitVolume) -> LinearSums:
        del number
        return temperature_pass(volume, self.b)


def _per_class_pass(volume: FitVolume, model: LinearMap, theta: Tensor) -> LinearSums:
    del model
    return temperature_pass(volume, theta.tolist())


def _temperature_start(stream: Stream) -> tuple[LinearSums, Sample]:
    sampler, sums = Sampler(sparse=True), list[LinearSums]()

    def take(found: tuple[LinearSums, Sampler]) -> None:
        sums.append(sums.pop() + found[0] if sums else found[0])
        sampler.merge(found[1], stream.num_classes)

    stream.fold(_start, take)
    return sums[0], sampler.close(stream.num_classes)


def _start(number: int, volume: FitVolume) -> tuple[LinearSums, Sampler]:
    sums, sampler = temperature_pass(volume, 1.0), Sampler(sparse=True, volume=number)
    sampler.add(volume)  # after the pass, which reads the pages of a mapped file in order
    return sums, sampler
