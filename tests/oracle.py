"""The judge: maps and scores in NumPy float64, straight from the formulas.

It imports nothing of fastcal and shares no trick with it. Every quantity is written out the long
way, with one formula per function. Members are float64 arrays ``[B, C, *S]``, to which half and
single precision numbers convert exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def sigmoid(z: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def softmax(z: Array) -> Array:
    """NaN for a voxel with a NaN, a +inf, or nothing but -inf."""
    with np.errstate(invalid="ignore"):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)


def p_ln_p(p: Array) -> Array:
    """p ln p with 0 ln 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p == 0, 0.0, p * np.log(p))


def entropy(p: Array, multilabel: bool) -> Array:
    """``-sum p ln p``, or the sum of the Bernoulli entropies of all classes when multilabel."""
    terms = p_ln_p(p) + (p_ln_p(1 - p) if multilabel else 0.0)
    return np.asarray(-terms.sum(axis=1))


def logits_of(p: Array, exclusive: bool) -> Array:
    """The logits whose activation is p: ln p for softmax, ln p - ln(1 - p) for sigmoid."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(p) if exclusive else np.log(p) - np.log1p(-p)


@dataclass(frozen=True)
class Maps:
    """Every map in float64, with NaN (label -1) where a voxel is invalid, in the order of bits."""

    OF_VOXELS: ClassVar = ("valid", "member_margin")
    """The fields that are no maps."""

    mean: Array
    label: Ints
    confidence: Array
    entropy: Array
    expected_entropy: Array
    mutual_information: Array
    variance: Array
    disagreement: Array
    valid: NDArray[np.bool_]
    member_margin: Array
    """Smallest distance of a member's decision from a tie: where it is 0 the vote is arbitrary."""


def member_probabilities(
    x: Array, *, from_logits: bool, activation: str, multilabel: bool, temperature: float
) -> Array:
    exclusive = activation == "softmax" and not multilabel
    if not from_logits:
        if temperature == 1:
            return x
        x = logits_of(x, exclusive)
    return (softmax if exclusive else sigmoid)(x / temperature)


def maps(
    members: Sequence[Array],
    *,
    from_logits: bool = True,
    activation: str = "softmax",
    multilabel: bool = False,
    space: str = "prob",
    weights: Sequence[float] | None = None,
    temperatures: Sequence[float] | None = None,
    normalise: bool = False,
) -> Maps:
    """Maps of an ensemble of ``[B, C, *S]`` arrays."""
    n_members = len(members)
    raw = np.ones(n_members) if weights is None else np.asarray(weights, np.float64)
    w = (raw / raw.sum()).reshape(-1, *([1] * members[0].ndim))
    t = [1.0] * n_members if temperatures is None else list(temperatures)
    exclusive = activation == "softmax" and not multilabel

    p_m = np.stack(
        [
            member_probabilities(
                x,
                from_logits=from_logits,
                activation=activation,
                multilabel=multilabel,
                temperature=t_m,
            )
            for x, t_m in zip(members, t, strict=True)
        ]
    )
    plain_mean = (w * p_m).sum(axis=0)
    if space == "logit":
        z_m = [x if from_logits else logits_of(x, exclusive) for x in members]
        with np.errstate(invalid="ignore"):
            z = (w * np.stack([z / t_k for z, t_k in zip(z_m, t, strict=True)])).sum(axis=0)
        mean = (softmax if exclusive else sigmoid)(z)
    else:
        mean = plain_mean

    in_range = np.ones(mean.shape, bool)
    if not from_logits:
        for p in (*members, *(() if space == "logit" else (mean,))):
            in_range &= (p >= -1e-3) & (p <= 1 + 1e-3)
        mean = np.where(mean < 0, 0.0, mean)
    valid = (np.isfinite(mean) & in_range).all(axis=1)
    if normalise and not multilabel:
        mean = mean / mean.sum(axis=1, keepdims=True)

    h = entropy(mean, multilabel)
    expected = (w[:, 0] * np.stack([entropy(p, multilabel) for p in p_m])).sum(axis=0)
    variance = (w * (p_m - plain_mean) ** 2).sum(axis=0).mean(axis=1)
    if multilabel:
        label = (mean > 0.5).astype(np.int64)
        confidence = np.maximum(mean, 1 - mean)
        votes = (p_m > 0.5).sum(axis=0)
        disagreement = (np.minimum(votes, n_members - votes) / n_members).mean(axis=1)
        margin = np.abs(p_m - 0.5).min(axis=(0, 2))
        off = ~valid[:, None] & np.ones(mean.shape, bool)
    else:
        label = mean.argmax(axis=1)
        confidence = mean.max(axis=1)
        n_classes = mean.shape[1]
        choice = p_m.argmax(axis=2)
        votes = np.stack([(choice == k).sum(axis=0) for k in range(n_classes)])
        disagreement = 1 - votes.max(axis=0) / n_members
        ordered = np.sort(p_m, axis=2)
        gap = ordered[:, :, -1] - ordered[:, :, -2] if n_classes > 1 else np.ones(choice.shape)
        margin = gap.min(axis=0)
        off = ~valid

    def masked(values: Array) -> Array:
        return np.where(valid, values, np.nan)

    return Maps(
        mean=np.where(valid[:, None], mean, np.nan),
        label=np.where(off, -1, label),
        confidence=np.where(off, np.nan, confidence),
        # Interpolation may leave a probability a little beyond 1, where -p ln p is negative.
        entropy=masked(np.maximum(h, 0)),
        expected_entropy=masked(np.maximum(expected, 0)),
        mutual_information=masked(np.maximum(h - expected, 0)),
        variance=masked(variance),
        disagreement=masked(disagreement),
        valid=valid,
        member_margin=margin,
    )


@dataclass(frozen=True)
class Bins:
    """One reliability histogram."""

    count: Ints
    hits: Ints
    confidence_sum: Array

    def errors(self) -> tuple[Array, Array]:
        """|accuracy - mean confidence| and share of the samples, of the non-empty bins."""
        n = self.count[self.count > 0]
        gap = (self.hits - self.confidence_sum)[self.count > 0] / n
        return np.abs(gap), n / max(n.sum(), 1)

    def ece(self, norm: str = "l1") -> float:
        gap, share = self.errors()
        if len(gap) == 0:
            return float("nan")
        if norm == "max":
            return float(gap.max())
        if norm == "l2":
            return float(np.sqrt((share * gap**2).sum()))
        return float((share * gap).sum())


def histogram(p: Array, hit: NDArray[np.bool_], edges: Array, *, closed: str = "right") -> Bins:
    """Samples of each bin: (lo, hi] with 0 in the first, or [lo, hi) with 1 in the last."""
    n_bins = len(edges) - 1
    count, hits = np.zeros(n_bins, np.int64), np.zeros(n_bins, np.int64)
    total = np.zeros(n_bins)
    for b in range(n_bins):
        low, high = edges[b], edges[b + 1]
        if closed == "right":
            inside = ((p > low) | (b == 0)) & ((p <= high) | (b == n_bins - 1))
        else:
            inside = ((p >= low) | (b == 0)) & ((p < high) | (b == n_bins - 1))
        count[b] = inside.sum()
        hits[b] = (inside & hit).sum()
        total[b] = p[inside].sum()
    return Bins(count, hits, total)


@dataclass(frozen=True)
class OracleScores:
    """Everything the calibration statistics report, pooled over the counted voxels."""

    n_voxels: int
    top_label: Bins
    classwise: list[Bins]
    brier: float
    nll: float
    accuracy: float
    dice: Array

    @property
    def classwise_ece(self) -> Array:
        return np.array([bins.ece() for bins in self.classwise])


def edges(n_bins: int, dtype: type[np.floating] = np.float32) -> Array:
    """`numpy.linspace` in float64, rounded once to the type of the data."""
    return np.linspace(0, 1, n_bins + 1).astype(dtype).astype(np.float64)


def scores(
    probs: Array,
    target: Ints,
    *,
    edges: Array,
    closed: str = "right",
    multilabel: bool = False,
    mask: NDArray[np.bool_] | None = None,
    ignore_index: int | None = None,
    eps: float = float(np.finfo(np.float32).tiny),
) -> OracleScores:
    """Compute scores of ``[B, C, *S]`` against ``[B, *S]``, or ``[B, C, *S]`` when multilabel."""
    n_classes = probs.shape[1]
    kept = np.ones((probs.shape[0], *probs.shape[2:]), bool) if mask is None else mask.copy()
    if ignore_index is not None:
        ignored = target == ignore_index
        kept &= ~(ignored.any(axis=1) if multilabel else ignored)
    kept &= np.isfinite(probs).all(axis=1)

    p = np.moveaxis(probs, 1, -1)[kept]
    if multilabel:
        y = np.moveaxis(target, 1, -1)[kept].astype(bool)
        label = p > 0.5
        confidence, correct = np.maximum(p, 1 - p), label == y
        p_true = np.where(y, p, 1 - p)
        squares = ((p - y) ** 2).sum(axis=1)
        truth, predicted = y, label
    else:
        t = target[kept]
        y = t[:, None] == np.arange(n_classes)
        label_index = p.argmax(axis=1) if len(p) else np.zeros(0, np.int64)
        confidence, correct = p.max(axis=1, initial=0.0), label_index == t
        p_true = p[y]
        squares = ((p - y) ** 2).sum(axis=1)
        truth, predicted = y, label_index[:, None] == np.arange(n_classes)

    surprise = -np.log(np.maximum(p_true, eps))

    def mean(values: Array) -> float:
        return float(values.mean()) if values.size else float("nan")

    overlap = (truth & predicted).sum(axis=0)
    size = truth.sum(axis=0) + predicted.sum(axis=0)
    with np.errstate(invalid="ignore"):
        dice = np.asarray(2 * overlap / np.where(size == 0, np.nan, size))
    return OracleScores(
        n_voxels=len(p),
        top_label=histogram(confidence.ravel(), correct.ravel(), edges, closed=closed),
        classwise=[histogram(p[:, k], y[:, k], edges, closed=closed) for k in range(n_classes)],
        brier=mean(squares),
        nll=mean(surprise.sum(axis=1) if multilabel else surprise),
        accuracy=mean(correct.astype(np.float64)),
        dice=dice,
    )


# What is read in order of the probability, from sorted samples


def fine_edges(fine_bins: int) -> Array:
    """Lower edges of the fine cells: octaves from 2^-33 to 1/2 cut evenly, and their mirror."""
    cells = fine_bins // 64
    octaves = np.arange(-33, -1)[:, None]
    low = (2.0**octaves * (1 + np.arange(cells) / cells)).ravel()
    low[0] = 0.0
    return np.concatenate([low, [0.5], 1 - low[:0:-1]])


def fine_cells(p: Array, fine_bins: int) -> Ints:
    """Cell of each p; [lo, hi) below 1/2 and (lo, hi] above, so that both ends have one alike."""
    half = fine_bins // 2
    low = np.append(fine_edges(fine_bins)[:half], 0.5)
    index = np.searchsorted(low, np.where(p < 0.5, p, 1 - p), side="right") - 1
    index = np.clip(index, 0, half - 1)
    return np.asarray(np.where(p < 0.5, index, fine_bins - 1 - index))


def auroc(score: Array, hit: NDArray[np.bool_]) -> float:
    """Share of the pairs of a hit and a miss in which the hit scores higher; ties count half."""
    above = score[hit][:, None] > score[~hit]
    equal = score[hit][:, None] == score[~hit]
    return float((above + 0.5 * equal).mean()) if hit.any() and not hit.all() else float("nan")


def aurc(score: Array, wrong: NDArray[np.bool_]) -> float:
    """Mean over k of the error rate of the k most confident samples."""
    order = np.argsort(-score, kind="stable")
    return float((np.cumsum(wrong[order]) / np.arange(1, len(score) + 1)).mean())


def adaptive_bins(p: Array, hit: NDArray[np.bool_], n_bins: int) -> Bins:
    """The sorted samples in parts whose sizes differ by at most one, larger parts first."""
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, n_bins)
    return Bins(
        np.array([len(part) for part in parts]),
        np.array([hit[part].sum() for part in parts]),
        np.array([p[part].sum() for part in parts]),
    )


# --- temperature scaling --------------------------------------------------------------------------


@dataclass(frozen=True)
class TemperatureSums:
    """Negative log-likelihood and its derivatives by inverse temperatures, one a class."""

    loss: float
    gradient: Array
    hessian: Array


def temperature_sums(z: Array, y: Array, b: Array, *, bernoulli: bool) -> TemperatureSums:
    """Sums over voxels of finite logits ``[C, n]``, targets ``[C, n]`` of 0 and 1, b ``[C]``."""
    a = b[:, None] * z
    number, n = z.shape
    if bernoulli:
        loss = float((np.logaddexp(0, a) - y * a).sum())
        p = sigmoid(a)
    else:
        top = a.max(axis=0)
        loss = float((np.log(np.exp(a - top).sum(axis=0)) - (y * (a - top)).sum(axis=0)).sum())
        p = np.exp(a - top) / np.exp(a - top).sum(axis=0)
    hessian = np.zeros((number, number))
    for voxel in range(n):
        coupled = np.zeros((number, number)) if bernoulli else np.outer(p[:, voxel], p[:, voxel])
        own = p[:, voxel] * (1 - p[:, voxel]) if bernoulli else p[:, voxel]
        hessian += (np.diag(own) - coupled) * np.outer(z[:, voxel], z[:, voxel])
    return TemperatureSums(loss, ((p - y) * z).sum(axis=1), hessian)


# --- losses ---------------------------------------------------------------------------------------


def loss_sums(z: Array, target: Ints, head: str, ignore_index: int | None) -> Array:
    """``[B, 6, C]``: sums of p over the class, p, p^2, voxels of the class, -ln p over the class,
    and -ln p over all voxels (softmax) or -ln (1 - p) over those of other classes (sigmoid)."""
    p = softmax(z) if head == "softmax" else sigmoid(z)
    sums = np.zeros((len(z), 6, z.shape[1]))
    for image in range(len(z)):
        kept = np.ones_like(target[image], bool)
        if ignore_index is not None:
            kept = target[image] != ignore_index
        for k in range(z.shape[1]):
            own = kept & (target[image] == (k if z.shape[1] > 1 else 1))
            values = p[image, k]
            with np.errstate(divide="ignore"):
                rest = (
                    -np.log(values[kept]) if head == "softmax" else -np.log(1 - values[kept & ~own])
                )
                nll = -np.log(values[own]).sum()
            overlaps = values[own].sum(), values[kept].sum(), (values[kept] ** 2).sum()
            sums[image, :, k] = (*overlaps, own.sum(), nll, rest.sum())
    return sums


def bin_gaps(p: Array, own: NDArray[np.bool_], n_bins: int, soft: bool) -> tuple[Array, Array]:
    """Sum of p - y and amount of voxels in each bin, of one class; ``own`` where y is 1."""
    gaps, amounts = np.zeros(n_bins), np.zeros(n_bins)
    edges = np.linspace(0, 1, n_bins + 1)
    centres = (np.arange(n_bins) + 0.5) / n_bins
    for value, y in zip(p.ravel(), own.ravel(), strict=True):
        if soft:
            inside = min(max(value, centres[0]), centres[-1])
            shares = np.maximum(0, 1 - n_bins * np.abs(inside - centres))
        else:
            shares = np.zeros(n_bins)
            shares[max(0, int(np.searchsorted(edges, value)) - 1)] = 1
        gaps += shares * (value - y)
        amounts += shares
    return gaps, amounts
