"""Calibrators that count, each class against the rest: histogram binning, isotonic regression."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcal.core import bins
from fastcal.core.arrays import Floats
from fastcal.core.problem import Activation
from fastcal.recalibrate.calibrator import Calibrator, numbers
from fastcal.recalibrate.histogram import FineHistogram, cell_values, isotonic_curve
from fastcal.recalibrate.stream import Stream, no_voxels
from fastcal.recalibrate.volumes import Block, FitVolume


class ProbabilityMap(Calibrator):
    """The common part of the counting calibrators: one curve per class, fitted in one pass.

    The probability of each class is mapped by its own curve. Softmax probabilities are then divided
    by their new sum; where that is 0, they are left unchanged.
    """

    n_voxels_: int | None = None
    """Number of voxels of the fit; None for a calibrator from a file."""

    @abstractmethod
    def _mapped(self, p: Tensor) -> Tensor:
        """Evaluate the curves at probabilities ``[C, n]``, in float64."""

    def _transform(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        del dtype
        p = self.reading.probabilities(values)
        made = self._mapped(p)
        if self.reading.bernoulli:
            return made
        total = made.sum(0)
        return torch.where(total > 0, made / total, p.double())


class HistogramBinning(ProbabilityMap):
    """Histogram binning: each bin of probability maps to the share of its voxels in the class.

    Args:
        n_bins: Number of bins of equal width over [0, 1].
        closed: ``"right"`` for bins (lo, hi], the first of which is closed at 0, too; ``"left"``
            for [lo, hi).
        from_logits: See `Calibrator`.
        activation: See `Calibrator`.
        multilabel: See `Calibrator`.
        eps: See `Calibrator`.

    Raises:
        TypeError, ValueError: An argument is out of range.

    Source: Zadrozny and Elkan, ICML 2001.

    Example:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]])[None]
        >>> calibrator = HistogramBinning(n_bins=2, from_logits=False)
        >>> calibrator.fit_transform(p, torch.tensor([[0, 0, 0, 1]]))[0, 0]
        tensor([0.7500, 0.7500, 0.7500, 0.7500])
    """

    kind = "histogram"

    def __init__(
        self,
        *,
        n_bins: int = 15,
        closed: bins.Closed = "right",
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        eps: float | None = None,
    ) -> None:
        super().__init__(
            from_logits=from_logits, activation=activation, multilabel=multilabel, eps=eps
        )
        bins.check_bins(n_bins, closed)
        self.n_bins = n_bins
        self.closed = closed
        self._frequency: Tensor | None = None

    @property
    def frequency_(self) -> Floats:
        """Frequencies ``[C, n_bins]``; NaN in a bin without voxels, which changes nothing."""
        self._fitted()
        assert self._frequency is not None
        return self._frequency.numpy()

    def settings(self) -> dict[str, Any]:
        """Return the arguments that it was made with."""
        return {**super().settings(), "n_bins": self.n_bins, "closed": self.closed}

    def _fit(self, stream: Stream) -> None:
        tally = stream.sum(self._tally)
        if not bool(tally[0, 0].any()):
            raise no_voxels()
        self.n_voxels_ = int(tally[0, 0].sum())
        self._frequency = tally[1].double() / tally[0]

    def _tally(self, number: int, volume: FitVolume) -> Tensor:
        """Count the voxels of each bin and the hits among them, int64 ``[2, C, n_bins]``."""
        del number
        tally = torch.zeros((2, volume.num_classes, self.n_bins), dtype=torch.int64)
        count, hits = tally
        for block in volume.blocks():
            p = self.reading.probabilities(block.values)
            present = _present(block, volume.num_classes)
            for k, (cell, hit) in enumerate(zip(self._bin(p).cpu(), present, strict=True)):
                count[k] += torch.bincount(cell, minlength=self.n_bins)
                hits[k] += torch.bincount(cell[hit], minlength=self.n_bins)
        return tally

    def _bin(self, p: Tensor) -> Tensor:
        real = torch.float64 if p.dtype == torch.float64 else torch.float32
        inner = bins.thresholds(self.n_bins, real).to(p.device)
        return torch.bucketize(p.to(real).contiguous(), inner, right=self.closed == "left")

    def _mapped(self, p: Tensor) -> Tensor:
        assert self._frequency is not None
        made = self._frequency.to(p.device).gather(1, self._bin(p))
        return torch.where(made.isnan(), p.double(), made)

    def _state(self) -> dict[str, Any]:
        return {"frequency": [_or_none(row) for row in self.frequency_.tolist()]}

    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        empty = torch.tensor([[one is None for one in row] for row in state["frequency"]])
        rows = [[0.0 if one is None else one for one in row] for row in state["frequency"]]
        found = _shares({"frequency": rows}, "frequency", (num_classes, self.n_bins))
        self._frequency = found.masked_fill(empty, torch.nan)


class IsotonicRegression(ProbabilityMap):
    """Isotonic regression: a rising curve from the probability of each class to its frequency.

    The curve is fitted to a histogram of 129,024 cells, which are spaced by the bits of p near 0
    and of 1 - p near 1. The result is that of scikit-learn's ``IsotonicRegression`` for
    probabilities rounded to the middle of their cells, which is at most a relative 2^-10 of p or of
    1 - p away. The fit reads the data once, and takes 2 MB per class.

    Args:
        from_logits: See `Calibrator`.
        activation: See `Calibrator`.
        multilabel: See `Calibrator`.
        eps: See `Calibrator`.

    Raises:
        TypeError, ValueError: An argument is out of range.

    Source: Zadrozny and Elkan, KDD 2002.

    Example:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.9, 0.6, 0.6], [0.1, 0.1, 0.4, 0.4]])[None]
        >>> calibrator = IsotonicRegression(from_logits=False)
        >>> calibrator.fit_transform(p, torch.tensor([[0, 0, 0, 1]]))[0, 0].round(decimals=2)
        tensor([1.0000, 1.0000, 0.5000, 0.5000])
    """

    kind = "isotonic"

    def __init__(
        self,
        *,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        eps: float | None = None,
    ) -> None:
        super().__init__(
            from_logits=from_logits, activation=activation, multilabel=multilabel, eps=eps
        )
        self._knots: list[tuple[Floats, Floats]] | None = None

    @property
    def knots_(self) -> list[tuple[Floats, Floats]]:
        """Probabilities and calibrated values for each class.

        The curve is linear between them and constant outside.
        """
        self._fitted()
        assert self._knots is not None
        return self._knots

    def _fit(self, stream: Stream) -> None:
        histogram = stream.sum(self._histogram)
        if not histogram.count[0].any():
            raise no_voxels()
        self.n_voxels_ = int(histogram.count[0].sum())
        x = cell_values()
        rows = zip(histogram.count, histogram.hits, strict=True)
        self._knots = [isotonic_curve(count, hits, x) for count, hits in rows]

    def _histogram(self, number: int, volume: FitVolume) -> FineHistogram:
        del number
        histogram = FineHistogram(volume.num_classes)
        for block in volume.blocks():
            p = self.reading.probabilities(block.values)
            histogram.add(p, _present(block, volume.num_classes))
        return histogram

    def _mapped(self, p: Tensor) -> Tensor:
        return torch.stack([self._curve(one.double(), k) for k, one in enumerate(p)])

    def _curve(self, p: Tensor, k: int) -> Tensor:
        x, y = (torch.from_numpy(one).to(p.device) for one in self.knots_[k])
        if len(x) == 1:
            return y.expand_as(p)
        right = torch.searchsorted(x, p.contiguous()).clamp(1, len(x) - 1)
        share = ((p - x[right - 1]) / (x[right] - x[right - 1])).clamp(0, 1)
        return y[right - 1] + share * (y[right] - y[right - 1])

    def _state(self) -> dict[str, Any]:
        return {"knots": [[x.tolist(), y.tolist()] for x, y in self.knots_]}

    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        if len(state["knots"]) != num_classes:
            raise ValueError(f"knots must be of {num_classes} classes, got {len(state['knots'])}")
        self._knots = []
        for row in state["knots"]:
            x, y = _shares({"knots": row}, "knots", (2, len(row[0]))).numpy()
            if len(x) == 0 or not (np.diff(x) > 0).all() or not (np.diff(y) >= 0).all():
                raise ValueError("knots must rise, got some that do not")
            self._knots.append((x, y))


def _present(block: Block, num_classes: int) -> Tensor:
    """Return which classes each voxel has, bool ``[C, n]`` on the CPU."""
    target = block.target.cpu()
    if target.dim() == 2:
        return target == 1
    return target == torch.arange(num_classes)[:, None]


def _shares(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    """Read numbers that lie in [0, 1]; see `numbers`."""
    found = numbers(state, name, shape)
    if found.numel() and not 0 <= float(found.min()) <= float(found.max()) <= 1:
        low, high = float(found.min()), float(found.max())
        raise ValueError(f"{name} must lie in [0, 1], got {low:.4g} to {high:.4g}")
    return found


def _or_none(row: list[float]) -> list[float | None]:
    return [None if one != one else one for one in row]
