"""Entropies of predictions and of their members, as maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastcal.core.arrays import Array, to_tensor
from fastcal.ensemble import ensemble_entropy, ensemble_statistics

_UNNORMALISED = 0.05
"""How far from 1 the classes may sum before the axis must be another; half precision fits."""


def predictive_entropy(
    preds: Array | Sequence[Array], *, from_logits: bool = False, multilabel: bool = False
) -> Array:
    """Return the entropy of a prediction, or of the mean of M members, in nats, ``[B, *S]``.

    Args:
        preds: One prediction ``[B, C, *S]``, or a list of M members of that shape: probabilities.
        from_logits: ``preds`` are logits.
        multilabel: Every class is a Bernoulli of its own; entropies are summed.

    Returns:
        float32 (float64 for float64 members); NaN for invalid voxels.

    Raises:
        TypeError, ValueError: An argument does not fit, or the classes of an array of probabilities
            do not sum to 1, as in one of stacked members.

    Example:
        >>> import torch
        >>> predictive_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])
        >>> predictive_entropy([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
        tensor([0.6931])
    """
    if not isinstance(preds, list | tuple):
        if not from_logits and not multilabel:
            _check_classes(preds, 1, "one prediction [B, C, *S]; members go in a list")
        preds = [preds]
    return ensemble_entropy(preds, from_logits=from_logits, multilabel=multilabel)


def expected_entropy(
    preds: Array | Sequence[Array], *, from_logits: bool = False, multilabel: bool = False
) -> Array:
    """Return the mean entropy of M members, in nats, ``[B, *S]``: what more members leave.

    ``preds`` are probabilities: a list of M members ``[B, C, *S]``, or one tensor
    ``[M, B, C, *S]``. The other arguments and the result are those of `predictive_entropy`.

    Example:
        >>> import torch
        >>> expected_entropy([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
        tensor([0.])
    """
    _check_members(preds, from_logits, multilabel)
    found = ensemble_statistics(
        preds, maps="expected_entropy", from_logits=from_logits, multilabel=multilabel
    )
    return found.expected_entropy


def mutual_information(
    preds: Array | Sequence[Array], *, from_logits: bool = False, multilabel: bool = False
) -> Array:
    """Return predictive less expected entropy, in nats, ``[B, *S]``: the members' disagreement.

    Arguments and result are those of `expected_entropy` (Houlsby et al., 2011: BALD).

    Example:
        >>> import torch
        >>> mutual_information([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
        tensor([0.6931])
    """
    _check_members(preds, from_logits, multilabel)
    found = ensemble_statistics(
        preds, maps="mutual_information", from_logits=from_logits, multilabel=multilabel
    )
    return found.mutual_information


def _check_members(preds: Array | Sequence[Array], from_logits: bool, multilabel: bool) -> None:
    if not isinstance(preds, list | tuple) and not from_logits and not multilabel:
        _check_classes(preds, 2, "members [M, B, C, *S]")


def _check_classes(preds: Array, axis: int, what: str) -> None:
    """Raise a ValueError where an array has another layout than ``what``."""
    values = to_tensor(preds, "preds")
    if values.dim() <= axis:
        raise ValueError(f"preds must be {what}, got shape {tuple(values.shape)}")
    excess = (values.sum(axis, dtype=torch.float32) - 1).abs()
    if bool((excess > _UNNORMALISED).any()):
        raise ValueError(
            f"preds must sum to 1 over axis {axis}, the classes of {what}, got probabilities of "
            f"shape {tuple(values.shape)} that do not sum to 1"
        )
