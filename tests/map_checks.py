"""Checks of maps against the float64 oracle, with plain PyTorch as the yardstick of accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import oracle
import torch
from members import arranged, exact
from torch import Tensor

import fastcal

MAPS = tuple(it.name for it in fields(oracle.Maps) if it.name not in oracle.Maps.OF_VOXELS)
FLOATS = tuple(name for name in MAPS if name != "label")


def plain_maps(
    members: list[Tensor],
    *,
    from_logits: bool = True,
    activation: str = "softmax",
    multilabel: bool = False,
    space: str = "prob",
    weights: Sequence[float] | None = None,
    temperatures: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Plain PyTorch at the accumulation precision: the yardstick of accuracy."""
    dtype = torch.promote_types(members[0].dtype, torch.float32)
    softmax = activation == "softmax" and not multilabel
    values = torch.stack(members).to(dtype)

    def column(numbers: Sequence[float] | None) -> Tensor:
        numbers = [1.0] * len(members) if numbers is None else numbers
        return torch.tensor(numbers, dtype=dtype).reshape(-1, *[1] * members[0].ndim)

    w, t = column(weights), column(temperatures)
    z = values if from_logits else values.log() if softmax else values.logit()
    p = (z / t).softmax(2) if softmax else (z / t).sigmoid()
    if not from_logits:
        p = torch.where(t == 1, values, p)
    mean = (w * p).sum(0) / w.sum()
    if space == "logit":
        mean_z = (w * z / t).sum(0) / w.sum()
        mean = mean_z.softmax(1) if softmax else mean_z.sigmoid()

    def entropy_of(q: Tensor, axis: int) -> Tensor:
        terms = torch.special.entr(q)
        return (terms + torch.special.entr(1 - q) if multilabel else terms).sum(axis)

    entropy = entropy_of(mean, 1)
    expected = (w[:, 0] * entropy_of(p, 2)).sum(0) / w.sum()
    return {
        "mean": mean,
        "confidence": torch.maximum(mean, 1 - mean) if multilabel else mean.amax(1),
        "entropy": entropy,
        "expected_entropy": expected,
        "mutual_information": (entropy - expected).clamp_min(0),
        "variance": ((w * (p - mean) ** 2).sum(0) / w.sum()).mean(1),
    }


def largest_error(got: Tensor, expected: np.ndarray) -> float:
    got_64 = exact(got)
    assert got_64.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(got_64), np.isnan(expected))
    return float(np.nanmax(np.abs(got_64 - expected), initial=0.0))


def assert_maps_match(
    got: fastcal.EnsembleStatistics,
    expected: oracle.Maps,
    names: tuple[str, ...],
    *,
    plain: dict[str, Tensor] | None = None,
) -> None:
    """Conventions: the error over a volume is at most ``max(1e-6, 2 x plain PyTorch's)``."""
    for name in names:
        values = getattr(got, name)
        assert values is not None, name
        if name == "label":
            assert_labels_match(values, expected)
            continue
        want = getattr(expected, name)
        if name == "disagreement":
            decided = expected.member_margin > 1e-5
            values = torch.where(torch.from_numpy(decided), values, math.nan)
            want = np.where(decided, want, np.nan)
        tolerance = 1e-6
        if plain is not None and name in plain:
            tolerance = max(tolerance, 2 * largest_error(plain[name], want))
        error = largest_error(values, want)
        assert error <= tolerance, f"{name}: error {error:.3g}, tolerance {tolerance:.3g}"


def assert_labels_match(got: Tensor, expected: oracle.Maps) -> None:
    """The same class, or one as probable to within the tolerance of the probabilities."""
    labels = got.numpy().astype(np.int64)
    assert labels.shape == expected.label.shape
    invalid = expected.label < 0
    np.testing.assert_array_equal(labels < 0, invalid)
    p = np.nan_to_num(expected.mean)
    if labels.ndim == p.ndim:
        undecided = np.abs(p - 0.5) < 1e-6
        np.testing.assert_array_equal(labels[~undecided], expected.label[~undecided])
    else:
        chosen = np.take_along_axis(p, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
        assert (chosen >= p.max(axis=1) - 1e-6)[~invalid].all()


def laid_out(members: list[Tensor], layout: str) -> tuple[list[Tensor] | Tensor, int]:
    """The members as the public functions take them, and their class_dim."""
    if layout == "stacked":
        return torch.stack(members), 1
    if layout == "class_first":
        return [m[0] for m in members], 0
    return [arranged(m, layout) for m in members], 1
