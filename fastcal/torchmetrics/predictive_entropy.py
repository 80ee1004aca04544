"""The mean entropy of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fastcal.core.arguments import choice, flag, whole_number
from fastcal.core.problem import FRACTION_BITS
from fastcal.ensemble import ensemble_statistics
from fastcal.torchmetrics.base import IntegerMetric

_FRACTION = (1 << FRACTION_BITS) - 1

_CHUNK = 1 << 20
"""Entropies summed at a time: sums of 40-bit fractions stay below 2^60, copies below 24 MB."""


class PredictiveEntropy(IntegerMetric):
    """Mean entropy of the prediction over voxels, in nats: ``-sum_k p_k ln p_k``.

    Args:
        from_logits: ``preds`` are logits; False: probabilities. Never guessed.
        activation: ``"softmax"``, or ``"sigmoid"`` for exclusive classes that need not sum to 1.
        multilabel: Every class is a Bernoulli of its own; entropies are summed over classes.
        ignore_index: Target value whose voxels are left out.
        validate_args: False leaves voxels without valid probabilities (NaN) out instead of raising.
        kwargs: Arguments of `torchmetrics.Metric`.

    ``update(preds, target=None)``: ``preds`` is ``[N, C, ...]``, or a list of M members of that
    shape, which are averaged. ``target`` ``[N, ...]`` is only read for ``ignore_index``, and lets
    the metric be part of a collection. ``compute()`` is a scalar, NaN where nothing was counted.
    Each entropy is summed as a whole number of 2^-40.

    Example:
        >>> from torch import tensor
        >>> metric = PredictiveEntropy()
        >>> metric([tensor([[1.0, 0.0]]), tensor([[0.0, 1.0]])])
        tensor(0.6931)
    """

    def __init__(
        self,
        *,
        from_logits: bool = False,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        multilabel: bool = False,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.from_logits = flag(from_logits, "from_logits")
        choice(activation, "activation", ("softmax", "sigmoid"))
        self.activation = activation
        self.multilabel = flag(multilabel, "multilabel")
        self.ignore_index = (
            None if ignore_index is None else whole_number(ignore_index, "ignore_index")
        )
        self.validate_args = flag(validate_args, "validate_args")
        reading = (self.from_logits, self.activation, self.multilabel)
        # Voxels, then the sum as a whole part and a fraction of 2^-40.
        self._add_counts(3, reading, self.ignore_index, self.validate_args)

    def update(self, preds: Tensor | Sequence[Tensor], target: Tensor | None = None) -> None:
        """Count one batch.

        Raises:
            TypeError, ValueError: Shapes or types that do not fit; ``ignore_index`` without a
                target; with ``validate_args``, voxels without valid probabilities.
        """
        members = [preds] if isinstance(preds, Tensor) else list(preds)
        entropy = ensemble_statistics(
            members,
            maps="entropy",
            from_logits=self.from_logits,
            activation=self.activation,
            multilabel=self.multilabel,
        ).entropy
        assert isinstance(entropy, Tensor)
        if self.ignore_index is not None:
            entropy = entropy[self._kept(target, entropy.shape, self.ignore_index)]
        valid = entropy.isfinite()
        n_invalid = entropy.numel() - int(valid.sum())
        if n_invalid:
            if self.validate_args:
                raise ValueError(
                    "preds must give valid probabilities at every voxel, got no valid "
                    f"probabilities at {n_invalid} of them. validate_args=False leaves such "
                    "voxels out"
                )
            entropy = entropy[valid]
        counts = torch.zeros(3, dtype=torch.int64, device=entropy.device)
        counts[0] = entropy.numel()
        for chunk in torch.split(entropy.flatten(), _CHUNK):
            steps = (chunk.double() * 2.0**FRACTION_BITS).round().long()
            counts[1] += (steps >> FRACTION_BITS).sum()
            counts[2] += (steps & _FRACTION).sum()
            _carry(counts)
        self._count(counts)

    def _count(self, counts: Tensor) -> None:
        with self._whole:
            super()._count(counts)
            _carry(self.counts)

    def compute(self) -> Tensor:
        """Return the mean entropy of everything counted; NaN where nothing was counted."""
        n_voxels, whole, fraction = self.counts.tolist()
        if n_voxels == 0:
            return self._value(float("nan"))
        return self._value(((whole << FRACTION_BITS) + fraction) / (n_voxels << FRACTION_BITS))

    def _kept(self, target: Tensor | None, shape: torch.Size, ignore_index: int) -> Tensor:
        if target is None:
            raise ValueError("target must be given with ignore_index, got None")
        ignored = torch.eq(target, ignore_index)
        if self.multilabel and target.dim() == len(shape) + 1:
            ignored = ignored.any(1)
        if ignored.shape != shape:
            raise ValueError(
                f"target must have shape {tuple(shape)} for these preds, got {tuple(target.shape)}"
            )
        return ~ignored


def _carry(counts: Tensor) -> None:
    counts[1] += counts[2] >> FRACTION_BITS
    counts[2] &= _FRACTION
