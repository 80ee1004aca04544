"""Minimisers that read the data only a few times: Newton's method, started from a sample."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fastcal.core.likelihood import likelihood, temperature_terms
from fastcal.recalibrate.linear import LinearMap, LinearSums
from fastcal.recalibrate.sample import Sample
from fastcal.recalibrate.stream import no_voxels

COLDEST, HOTTEST = 0.01, 100.0
"""Range of temperatures that is searched. Data with an optimum outside have no useful minimum:
all predictions are right, or they are unrelated to the target."""

_STEP = 1e-5
"""Relative size of a Newton step after which to stop. As convergence is quadratic, the remaining
error is the square of it."""
_NOTHING = 1e-15
"""Gain in nats per voxel below which to stop, for a loss that goes to 0 at infinity."""
_DECREMENT = 1e-10
"""Gain in nats per voxel that the last step may still promise; see `_STEP`."""
_FLAT_SLOPE, _FLAT_CURVATURE = 1e-8, 1e-10
"""Gradient and curvature in nats per voxel below which no parameter in the range that is searched
changes the loss by more than 1e-6."""
_FLAT = 1e-12
"""Eigenvalues of a Hessian below this, relative to the largest, are rounding errors."""
_CG_ITERATIONS = 400
_PAIRS = 10
"""Number of earlier steps that correct the Hessian of the sample."""
_SAMPLE_ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Fit:
    """Where a minimiser stopped."""

    theta: Tensor
    """Inverse temperatures, or the parameters of a `LinearMap`, float64 ``[P]``."""
    loss_before: float
    """Mean loss before the fit, in nats per voxel."""
    loss: float
    """Mean loss in the last pass, at most one small step away from ``theta``."""
    n_passes: int
    n_voxels: int


def fit_temperature(
    first: Callable[[], tuple[LinearSums, Sample]],
    again: Callable[[float], LinearSums],
    max_passes: int,
) -> Fit:
    """Find one inverse temperature by Newton's method, between bounds from the gradients.

    Args:
        first: A pass at T = 1 that draws a sample.
        again: A pass at another inverse temperature.
        max_passes: The most passes. If they do not suffice, there is a warning.

    Raises:
        ValueError: There is no voxel to fit to, or the passes see different numbers of voxels.
    """
    start, sample = first()
    n = _voxels(start.n_voxels)
    if _is_flat(start.gradient / n, start.hessian, n):
        _flat(stacklevel=6)
        loss = start.loss / n
        return Fit(torch.ones(1, dtype=torch.float64), loss, loss, 1, n)
    search = _Bracket(_sample_temperature(sample))
    passes, found = 1, start
    while not search.done:
        if passes >= max_passes:
            _not_converged(max_passes)
            break
        passes += 1
        found = _same_voxels(n, again(search.b))
        search.step(float(found.gradient) / n, _curvature(found) / n, _STEP)
    b = search.b
    if found.loss / n < _NOTHING or not 1.001 / HOTTEST < b < 0.999 / COLDEST:
        warnings.warn(
            f"temperature stopped at {1 / b:.3g}, because the likelihood has no minimum: either "
            "all predictions are right, or they are unrelated to the target",
            stacklevel=5,
        )
    theta = torch.tensor([b], dtype=torch.float64)
    return Fit(theta, start.loss / n, found.loss / n, passes, n)


def _curvature(found: LinearSums) -> float:
    assert found.hessian is not None
    return float(found.hessian)


class _Bracket:
    """Newton steps for an inverse temperature, between points where the gradient has both signs."""

    def __init__(self, b: float) -> None:
        self.b = b
        self.done = False
        self._low, self._high = 1 / HOTTEST, 1 / COLDEST

    def step(self, gradient: float, curvature: float, tolerance: float) -> None:
        """Move from the current point, where the mean loss has these derivatives."""
        last = self.b
        if gradient > 0:
            self._high = last
        else:
            self._low = last
        promised = gradient * gradient / curvature if curvature > 0 else abs(gradient)
        if promised <= _NOTHING:
            self.done = True
            return
        self.b = last - gradient / curvature if curvature > 0 else math.inf
        if not self._low <= self.b <= self._high:
            self.b = math.sqrt(self._low * self._high)
        self.done = abs(self.b - last) <= tolerance * last


def _sample_temperature(sample: Sample) -> float:
    search = _Bracket(1.0)
    total = float(sample.weight.sum())
    for _ in range(_SAMPLE_ITERATIONS):
        terms = temperature_terms(sample.logits, sample.target, search.b) @ sample.weight
        _, gradient, curvature = (terms / total).tolist()
        search.step(gradient, curvature, 1e-9)
        if search.done:
            break
    return search.b


@dataclass(frozen=True, slots=True)
class LinearStart:
    """The result of the first pass of `fit_linear`."""

    model: LinearMap
    """New logits as a function of theta."""
    penalty: Tensor
    """Weights d ``[P]`` of ``sum d (theta - identity)^2 / 2``, which is added to the mean loss."""
    sums: LinearSums
    """Sums at the identity."""
    sample: Sample


def fit_linear(
    first: Callable[[], LinearStart],
    again: Callable[[LinearMap, Tensor], LinearSums],
    max_passes: int,
) -> Fit:
    """Find the parameters of a linear map by Newton's method, from the minimum of a sample.

    Each pass computes loss and gradient. If it computes the Hessian too, the step is a Newton step.
    Otherwise the step solves the Hessian of the sample by conjugate gradients, corrected by earlier
    steps as in L-BFGS. Both are the same where all voxels fit into the sample.

    Args:
        first: A pass at the identity that draws a sample.
        again: A pass at another theta.
        max_passes: The most passes. If they do not suffice, there is a warning.

    Raises:
        ValueError: There is no voxel to fit to, or the passes see different numbers of voxels.
    """
    found = first()
    model, penalty, start, sample = found.model, found.penalty, found.sums, found.sample
    identity = model.identity()
    n = _voxels(start.n_voxels)
    if _is_flat(start.gradient / n, start.hessian, n):
        _flat(stacklevel=7)
        return Fit(identity, start.loss / n, start.loss / n, 1, n)
    hessian = _SampleHessian(model, penalty, sample)
    theta, best, gradient = hessian.minimum(), identity, start.gradient / n
    curved = start.hessian
    best_mean = best_loss = start.loss / n
    pairs: list[tuple[Tensor, Tensor]] = []
    passes, shrink = 1, 1.0
    while passes < max_passes:
        passes += 1
        sums = _same_voxels(n, again(model, theta))
        shift = theta - identity
        loss = sums.loss / n + float((penalty * shift.square()).sum()) / 2
        found_gradient = sums.gradient / n + penalty * shift
        if passes > 2:
            pairs = [*pairs, (theta - best, found_gradient - gradient)][-_PAIRS:]
        if not loss <= best_loss + _DECREMENT:  # NaN is no improvement
            shrink /= 2
        else:
            best, best_loss, best_mean = theta, loss, sums.loss / n
            gradient, curved, shrink = found_gradient, sums.hessian, 1.0
        if curved is not None:
            step = _solve(curved / n + penalty.diag(), gradient)
        else:
            step = _quasi_newton(gradient, pairs, partial(hessian.solve, best))
        if float(gradient @ step) <= _DECREMENT:
            best = best - step
            break
        theta = best - shrink * step
    else:
        _not_converged(max_passes)
    return Fit(best, start.loss / n, best_mean, passes, n)


def _solve(hessian: Tensor, gradient: Tensor) -> Tensor:
    """Solve for a Newton step, with no step along directions in which the loss is flat."""
    values, vectors = torch.linalg.eigh(hessian)
    share = vectors.T @ gradient
    floor = _FLAT * float(values[-1])
    step: Tensor = vectors @ torch.where(values > floor, share / values.clamp(min=floor), 0.0)
    return step


def _quasi_newton(
    gradient: Tensor, pairs: list[tuple[Tensor, Tensor]], solve: Callable[[Tensor], Tensor]
) -> Tensor:
    """Compute a step by ``solve``, corrected by how earlier steps changed the full gradient.

    These are the two loops of L-BFGS (Nocedal and Wright, 2006, algorithm 7.4), with the Hessian of
    the sample in place of a multiple of the identity.
    """
    kept = [(s, y, float(s @ y)) for s, y in pairs if float(s @ y) > 0]
    q, shares = gradient.clone(), []
    for s, y, curvature in reversed(kept):
        shares.append(float(s @ q) / curvature)
        q -= shares[-1] * y
    step = solve(q)
    for (s, y, curvature), share in zip(kept, reversed(shares), strict=True):
        step = step + (share - float(y @ step) / curvature) * s
    return step


class _SampleHessian:
    """The penalised mean loss of a sample, and steps by its Hessian.

    Args:
        model: New logits as a function of theta.
        penalty: See `LinearStart.penalty`.
        sample: The sample.
    """

    def __init__(self, model: LinearMap, penalty: Tensor, sample: Sample) -> None:
        self._model, self._penalty = model, penalty
        self._z, self._target = model.features(sample.logits), sample.target
        self._weight = sample.weight / sample.weight.sum()

    def minimum(self) -> Tensor:
        """Find the minimum of the sample by Newton's method, halving steps until the loss falls."""
        identity = theta = self._model.identity()
        loss, gradient = self._loss(theta, identity)
        for _ in range(_SAMPLE_ITERATIONS):
            step = self.solve(theta, gradient, accuracy=1e-4)
            decrement = float(gradient @ step)
            if decrement <= 1e-15:
                break
            scale = 1.0
            while scale > 1e-6:
                tried = theta - scale * step
                new_loss, new_gradient = self._loss(tried, identity)
                if new_loss <= loss - 1e-4 * scale * decrement:
                    break
                scale /= 2
            else:
                break
            theta, loss, gradient = tried, new_loss, new_gradient
        return theta

    def _loss(self, theta: Tensor, identity: Tensor) -> tuple[float, Tensor]:
        z, target = self._z, self._target
        loss, residual, _ = likelihood(self._model.forward(theta, z), target)
        shift = theta - identity
        gradient = self._model.adjoint(z, residual * self._weight) + self._penalty * shift
        return float(loss @ self._weight + (self._penalty * shift.square()).sum() / 2), gradient

    def solve(self, theta: Tensor, gradient: Tensor, *, accuracy: float = 1e-10) -> Tensor:
        """Solve for a Newton step by conjugate gradients, scaled by the diagonal of the Hessian.

        After `_CG_ITERATIONS` the result is a descent direction in any case. There is no step along
        directions that change no probability (a constant on all logits).

        Args:
            theta: Where the Hessian is taken.
            gradient: The right-hand side.
            accuracy: Relative size of the residual at which to stop.
        """
        model, z, target = self._model, self._z, self._target
        p = likelihood(model.forward(theta, z), target)[2]
        spread = p * (1 - p) * self._weight
        diagonal = model.adjoint(z.square(), spread) + self._penalty
        diagonal = diagonal.clamp(min=float(diagonal.max()) * 1e-14 + 1e-300)

        def product(v: Tensor) -> Tensor:
            u = model.forward(v, z)
            if target.dim() == 2:
                return model.adjoint(z, spread * u) + self._penalty * v
            pu = p * u
            return model.adjoint(z, (pu - p * pu.sum(0)) * self._weight) + self._penalty * v

        x = torch.zeros_like(gradient)
        r = gradient.clone()
        s = r / diagonal
        direction = s.clone()
        rs = float(r @ s)
        goal = accuracy * accuracy * rs
        for _ in range(min(10 * len(gradient) + 50, _CG_ITERATIONS)):
            if rs <= goal or rs == 0:
                break
            image = product(direction)
            curvature = float(direction @ image)
            if curvature <= 0:
                break
            scale = rs / curvature
            x += scale * direction
            r -= scale * image
            s = r / diagonal
            new = float(r @ s)
            direction = s + new / rs * direction
            rs = new
        return x


def _is_flat(gradient: Tensor, hessian: Tensor | None, n: int) -> bool:
    """Whether the mean loss depends on no parameter, or not in numbers that can be computed."""
    if not bool(gradient.isfinite().all()):
        return True
    if hessian is None:
        return False
    curvature = hessian / n
    if not bool(curvature.isfinite().all()):
        return True
    return float(gradient.abs().max()) < _FLAT_SLOPE and (
        float(curvature.abs().max()) < _FLAT_CURVATURE
    )


def _flat(stacklevel: int) -> None:
    warnings.warn(
        "nothing was fitted and logits stay as they are, because the likelihood has no minimum: "
        "the logits say nothing, or are all right, or are too large to compute with",
        stacklevel=stacklevel,
    )


def _voxels(n: int) -> int:
    if n == 0:
        raise no_voxels()
    return n


def _same_voxels(n: int, found: LinearSums) -> LinearSums:
    if found.n_voxels != n:
        raise ValueError(
            f"volumes must be the same in every pass, got {n} voxels in the first and "
            f"{found.n_voxels} in a later one"
        )
    return found


def _not_converged(passes: int) -> None:
    warnings.warn(f"no convergence in {passes} passes: increase max_passes", stacklevel=6)
