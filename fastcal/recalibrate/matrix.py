"""Linear maps of logits: vector scaling and Dirichlet calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastcal.core.problem import Activation
from fastcal.recalibrate.calibrator import numbers
from fastcal.recalibrate.linear import DirichletMap, VectorMap
from fastcal.recalibrate.scaling import Floats, LogitScaling, not_negative
from fastcal.recalibrate.stream import Stream


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
        def build(number: int) -> tuple[VectorMap, Tensor]:
            return VectorMap(number), torch.full((2 * number,), self.ridge, dtype=torch.float64)

        self._theta = self._fit_linear(stream, build)

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
