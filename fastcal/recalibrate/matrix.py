"""Linear maps of logits: vector scaling and Dirichlet calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastcal.core.arrays import Floats
from fastcal.core.problem import Activation
from fastcal.recalibrate.calibrator import numbers
from fastcal.recalibrate.linear import DirichletMap, VectorMap
from fastcal.recalibrate.scaling import LogitScaling, not_negative
from fastcal.recalibrate.stream import Stream


class VectorScaling(LogitScaling):
    """Vector scaling: a weight and a bias for each class, ``softmax(w_k z_k + b_k)``.

    With ``multilabel`` this is Platt scaling of each class.

    Args:
        ridge: Weight of the penalty ``sum ((w - 1)^2 + b^2) / 2`` in nats per voxel. It keeps the
            parameters of a class that is absent from the data finite.
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
        >>> z = torch.tensor([[[2.0, 2.0, 2.0, -2.0, -2.0, -2.0], [0.0] * 6]])
        >>> calibrator = VectorScaling().fit(z, torch.tensor([[0, 0, 1, 1, 1, 0]]))
        >>> calibrator.weight_.shape, calibrator.bias_.shape
        ((2,), (2,))
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
        """Weights, float64 ``[C]``."""
        return self._halves()[0].numpy()

    @property
    def bias_(self) -> Floats:
        """Biases, float64 ``[C]``."""
        return self._halves()[1].numpy()

    def settings(self) -> dict[str, Any]:
        """Return the arguments that it was made with."""
        return {**super().settings(), "ridge": self.ridge}

    def _halves(self) -> Tensor:
        self._fitted()
        assert self._theta is not None
        return self._theta.view(2, -1)

    def _fit(self, stream: Stream) -> None:
        self._theta = self._fit_linear(stream, self._build)

    def _build(self, number: int) -> tuple[VectorMap, Tensor]:
        return VectorMap(number), torch.full((2 * number,), self.ridge, dtype=torch.float64)

    def _logits(self, z: Tensor) -> Tensor:
        assert self._theta is not None
        return VectorMap(len(z)).forward(self._theta.to(z.device), z)

    def _state(self) -> dict[str, Any]:
        return {"weight": self.weight_.tolist(), "bias": self.bias_.tolist()}

    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        shape = (num_classes,)
        self._theta = torch.cat([numbers(state, name, shape) for name in ("weight", "bias")])


class DirichletCalibration(LogitScaling):
    """Dirichlet calibration: ``softmax(W ln p + b)`` with the penalty ODIR.

    The penalty ``odir / (C (C - 1)) * sum_{i != j} W_ij^2 + bias_penalty / C * sum_j b_j^2`` is
    added to the mean negative log-likelihood, and holds the off-diagonal weights and the bias near
    0. For logits, ``ln p`` is their log-softmax. It is defined only for softmax.

    Args:
        odir: Weight of the off-diagonal penalty (lambda in the paper, which selects it by
            cross-validation).
        bias_penalty: Weight of the penalty on the bias (mu in the paper); None takes ``odir``.
        max_passes: The most passes over the data. If they do not suffice, there is a warning.
        from_logits: See `Calibrator`.
        activation: Must be ``"softmax"``.
        multilabel: Must be False.
        eps: See `Calibrator`.

    Raises:
        TypeError, ValueError: An argument is out of range.

    Source: Kull et al., NeurIPS 2019.

    Example:
        >>> import torch
        >>> z = torch.tensor([[[2.0, 2.0, 2.0, -2.0, -2.0, -2.0], [0.0] * 6]])
        >>> calibrator = DirichletCalibration().fit(z, torch.tensor([[0, 0, 1, 1, 1, 0]]))
        >>> calibrator.weight_.shape, calibrator.bias_.shape
        ((2, 2), (2,))
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
            name, value = ("multilabel", True) if multilabel else ("activation", activation)
            allowed = "False" if multilabel else "'softmax'"
            raise ValueError(
                f"{name} must be {allowed} for Dirichlet calibration, got {value!r}: use "
                "VectorScaling for sigmoids"
            )
        self.odir = not_negative(odir, "odir")
        self.bias_penalty = (
            None if bias_penalty is None else not_negative(bias_penalty, "bias_penalty")
        )
        self._theta: Tensor | None = None

    @property
    def weight_(self) -> Floats:
        """Weights W, float64 ``[C, C]``."""
        return self._rows()[:, :-1].numpy()

    @property
    def bias_(self) -> Floats:
        """Biases b, float64 ``[C]``."""
        return self._rows()[:, -1].numpy()

    def settings(self) -> dict[str, Any]:
        """Return the arguments that it was made with."""
        own = {"odir": self.odir, "bias_penalty": self.bias_penalty}
        return {**super().settings(), **own}

    def _rows(self) -> Tensor:
        number = self._fitted()
        assert self._theta is not None
        return self._theta.view(number, number + 1)

    def _fit(self, stream: Stream) -> None:
        self._theta = self._fit_linear(stream, self._build)

    def _build(self, number: int) -> tuple[DirichletMap, Tensor]:
        mu = self.odir if self.bias_penalty is None else self.bias_penalty
        off_diagonal = 1 - torch.eye(number, dtype=torch.float64)
        penalty = torch.cat(
            [
                2 * self.odir / (number * (number - 1)) * off_diagonal,
                torch.full((number, 1), 2 * mu / number, dtype=torch.float64),
            ],
            1,
        )
        return DirichletMap(number), penalty.flatten()

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
