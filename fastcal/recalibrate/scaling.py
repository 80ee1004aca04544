"""The base class of calibrators of logits: the passes of a fit, and what they report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcal.core.problem import Activation
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.linear import LinearMap, LinearSums, linear_pass
from fastcal.recalibrate.newton import Fit, LinearStart, fit_linear
from fastcal.recalibrate.sample import Sampler
from fastcal.recalibrate.stream import Stream
from fastcal.recalibrate.volumes import FitVolume


class LogitScaling(Calibrator):
    """A `Calibrator` that computes new logits; its fit minimises the negative log-likelihood.

    Args:
        from_logits: See `Calibrator`.
        activation: See `Calibrator`.
        multilabel: See `Calibrator`.
        eps: See `Calibrator`.
        max_passes: The most passes over the data. If they do not suffice, there is a warning.

    Raises:
        TypeError, ValueError: An argument is out of range.
    """

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
            raise ValueError(f"max_passes must be an integer of at least 2, got {max_passes!r}")
        self.max_passes = max_passes
        self.n_passes_: int | None = None
        """Number of passes over the data; None for a calibrator from a file."""
        self.nll_before_: float | None = None
        """Mean negative log-likelihood before the fit, in nats per voxel."""
        self.nll_: float | None = None
        """The same after the fit. It is that of the last pass, one negligible step earlier."""
        self.n_voxels_: int | None = None
        """Number of voxels of the fit."""

    def settings(self) -> dict[str, Any]:
        """Return the arguments that it was made with."""
        return {**super().settings(), "max_passes": self.max_passes}

    @abstractmethod
    def _logits(self, z: Tensor) -> Tensor:
        """Compute new logits ``[C, n]``."""

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
        """Fit the parameters of a linear map.

        Args:
            stream: The volumes.
            build: Makes the map and its penalty for a number of classes.
            read: The pass over a volume.
            sparse: Draw a sparse sample, which is enough where ``read`` computes Hessians.
        """

        def first() -> LinearStart:
            sampler, sums = Sampler(sparse=sparse), list[LinearSums]()

            def take(found: tuple[LinearSums, Sampler]) -> None:
                sums.append(sums.pop() + found[0] if sums else found[0])
                sampler.merge(found[1], stream.num_classes)

            stream.fold(_First(build, read, sampler, sparse), take)
            model, penalty = build(stream.num_classes)
            return LinearStart(model, penalty, sums[0], sampler.close(stream.num_classes))

        def again(model: LinearMap, theta: Tensor) -> LinearSums:
            return stream.sum(_Again(read, model, theta))

        fit = fit_linear(first, again, self.max_passes)
        self._report(fit)
        return fit.theta


@dataclass(slots=True)
class _First:
    """The pass over a volume at the identity, with a sample."""

    build: Callable[[int], tuple[LinearMap, Tensor]]
    read: Callable[[FitVolume, LinearMap, Tensor], LinearSums]
    into: Sampler
    """The sampler that each is merged into."""
    sparse: bool

    def __call__(self, number: int, volume: FitVolume) -> tuple[LinearSums, Sampler]:
        model, _ = self.build(volume.num_classes)
        own = Sampler(sparse=self.sparse, volume=number, thresholds=self.into.thresholds)
        sums = self.read(volume, model, model.identity())
        own.add(volume)  # after the pass, which reads the pages of a mapped file in order
        return sums, own

    def __getstate__(self) -> tuple[Any, ...]:
        # What is drawn already need not travel.
        bare = Sampler(thresholds=self.into.thresholds)
        return self.build, self.read, bare, self.sparse

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.build, self.read, self.into, self.sparse = state


@dataclass(frozen=True, slots=True)
class _Again:
    """The pass over a volume at one theta."""

    read: Callable[[FitVolume, LinearMap, Tensor], LinearSums]
    model: LinearMap
    theta: Tensor

    def __call__(self, number: int, volume: FitVolume) -> LinearSums:
        del number
        return self.read(volume, self.model, self.theta)


def not_negative(value: float, name: str) -> float:
    """Return ``value`` as a float.

    Raises:
        ValueError: It is negative, infinite or not a number; the message calls it ``name``.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e300:
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
    return float(value)
