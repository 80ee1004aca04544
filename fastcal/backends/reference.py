"""The ensemble passes in plain PyTorch, one block of voxels at a time.

They take any device and any strides. They are the oracle of the other backends, and run where none
of those can. The state of a block is ``[planes, voxels]``, in the order of `StateLayout`.

Every step gives an element the same bits wherever it lies in a block. PyTorch's own softmax,
sigmoid and sums over many rows do not, and with them streaming would differ from one shot.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcal.backends import reference_counting
from fastcal.backends.boxes import Box, boxes
from fastcal.backends.reference_losses import (
    bin_gaps,
    bin_gradient,
    class_gradient,
    class_sums,
)
from fastcal.backends.reference_segments import segment_sums
from fastcal.backends.reference_temperature import temperature_sums
from fastcal.core.arrays import accumulation_type
from fastcal.core.problem import MAP_TABLE, Finish, Reading, StateLayout

__all__ = [
    "bin_gaps",
    "bin_gradient",
    "class_gradient",
    "class_sums",
    "ensemble_accumulate",
    "ensemble_finalize",
    "ensemble_statistics",
    "segment_sums",
    "temperature_sums",
]

BLOCK_ELEMENTS = 1 << 20
"""Voxels times classes in a block. This bounds the memory, and the int64 sums of a block."""

OUT_OF_RANGE = 1e-3
"""How far outside [0, 1] a probability may lie (interpolation does this) before it is invalid."""

OUTSIDE = 2.0**100
"""What a member's probability becomes that is out of range: so large that the mean is too."""

CERTAIN_LOGIT = 1e30
"""The logit of a probability of 1 under the sigmoid."""


def ensemble_statistics(
    members: list[Tensor],
    weights: list[float],
    temperatures: list[float],
    reading: Reading,
    finish: Finish,
) -> None:
    """Accumulate every member, then finish, one block at a time."""
    first = members[0]
    num_classes = first.shape[reading.class_dim]
    layout = StateLayout.for_maps(num_classes, tuple(finish.maps))
    total_weight = 0.0
    for weight in weights:
        total_weight += weight
    dtype = accumulation_type(first.dtype)
    for box in boxes(_voxel_shape(first, reading.class_dim), BLOCK_ELEMENTS // num_classes):
        n_voxels = math.prod(part.stop - part.start for part in box)
        block = torch.zeros(layout.planes, n_voxels, dtype=dtype, device=first.device)
        for member, weight, temperature in zip(members, weights, temperatures, strict=True):
            values = _classes_first(member, box, reading.class_dim)
            _accumulate_block(block, values, weight, temperature, reading, layout)
        _finish_block(block, len(members), total_weight, reading, layout, finish, box)


def ensemble_accumulate(
    member: Tensor,
    weight: float,
    temperature: float,
    reading: Reading,
    layout: StateLayout,
    state: Tensor,
) -> None:
    """Add one member to ``state``, ``[planes, *voxel shape]``."""
    for box in boxes(state.shape[1:], BLOCK_ELEMENTS // layout.num_classes):
        part = state[(slice(None), *box)]
        block = part.reshape(layout.planes, -1)
        values = _classes_first(member, box, reading.class_dim)
        _accumulate_block(block, values, weight, temperature, reading, layout)
        part.copy_(block.view(part.shape))


def ensemble_finalize(
    state: Tensor,
    n_members: int,
    total_weight: float,
    reading: Reading,
    layout: StateLayout,
    finish: Finish,
) -> None:
    """Compute maps and statistics of ``state``, which stays as it is."""
    for box in boxes(state.shape[1:], BLOCK_ELEMENTS // layout.num_classes):
        block = state[(slice(None), *box)].reshape(layout.planes, -1)
        _finish_block(block, n_members, total_weight, reading, layout, finish, box)


def _voxel_shape(member: Tensor, class_dim: int) -> tuple[int, ...]:
    return (*member.shape[:class_dim], *member.shape[class_dim + 1 :])


def _classes_first(tensor: Tensor, box: Box, class_dim: int) -> Tensor:
    """Give the box of a tensor with a class axis as ``[C, voxels]``."""
    part = tensor[(*box[:class_dim], slice(None), *box[class_dim:])]
    return part.movedim(class_dim, 0).reshape(tensor.shape[class_dim], -1)


def _accumulate_block(
    block: Tensor,
    values: Tensor,
    weight: float,
    temperature: float,
    reading: Reading,
    layout: StateLayout,
) -> None:
    logits, probabilities = _read(values.to(block.dtype), temperature, reading)
    num_classes = layout.num_classes
    summed = logits if reading.space == "logit" else probabilities
    assert summed is not None
    block[:num_classes] += weight * summed
    if layout.entropy:
        block[layout.entropy_plane] += weight * _member_entropy(logits, probabilities, reading)
    if layout.square:
        block[layout.square_plane :][:num_classes] += weight * (probabilities * probabilities)
    if layout.votes:
        votes = block[layout.votes_plane :][:num_classes]
        if reading.multilabel:
            votes += probabilities > 0.5
        else:
            ranked = probabilities if logits is None else logits
            winner = ranked.argmax(0, keepdim=True)
            votes.scatter_add_(0, winner, torch.ones_like(winner, dtype=votes.dtype))


def _read(values: Tensor, temperature: float, reading: Reading) -> tuple[Tensor | None, Tensor]:
    """Give a member's logits over its temperature (None where not needed), and probabilities."""
    softmax = reading.activation == "softmax" and not reading.multilabel
    if not reading.from_logits:
        if temperature == 1.0 and reading.space == "prob":
            # A member that is out of range takes the mean with it.
            return None, torch.where(_outside(values), OUTSIDE + (values - values), values)
        probabilities = values.clamp_min(0).masked_fill(_outside(values), math.nan)
        logits = probabilities.log()
        if not softmax:
            rest = (1 - probabilities).clamp_min(0)
            # +inf would mean invalid input, and cannot be averaged with -inf.
            logits = (logits - rest.log()).masked_fill(rest == 0, CERTAIN_LOGIT)
        if temperature == 1.0:
            return logits, values
        logits = logits / temperature
        return logits, _activate(logits, softmax)
    logits = values if temperature == 1.0 else values / temperature
    if not softmax:
        # A sigmoid would turn an infinite logit into a plausible 1.
        logits = logits.masked_fill(logits == math.inf, math.nan)
    return logits, _activate(logits, softmax)


def _outside(probabilities: Tensor) -> Tensor:
    return (probabilities < -OUT_OF_RANGE) | (probabilities > 1 + OUT_OF_RANGE)


def _activate(logits: Tensor, softmax: bool) -> Tensor:
    if not softmax:
        return 1 / (1 + (-logits).exp())
    weights = (logits - logits.amax(0)).exp()
    return weights / _sum(weights)


def _sum(rows: Tensor) -> Tensor:
    """Sum over the first axis, pair by pair."""
    while len(rows) > 1:
        half = len(rows) // 2
        paired = rows[:half] + rows[half : 2 * half]
        rows = torch.cat((paired, rows[2 * half :])) if len(rows) % 2 else paired
    return rows[0]


def _member_entropy(logits: Tensor | None, probabilities: Tensor, reading: Reading) -> Tensor:
    if logits is None or reading.activation != "softmax" or reading.multilabel:
        if reading.multilabel and logits is not None:
            return _sum(_bernoulli_entropy_of_logits(logits))
        return _entropy(probabilities.clamp_min(0), reading.multilabel)
    centred = logits - logits.amax(0)
    weights = centred.exp()
    total = _sum(weights)
    moment = _sum(torch.where(centred == -math.inf, 0, weights * centred))
    return total.log() - moment / total


def _bernoulli_entropy_of_logits(logits: Tensor) -> Tensor:
    size = logits.abs()
    tail = torch.where(size == math.inf, 0, size / (1 + size.exp()))
    return torch.log1p((-size).exp()) + tail


def _entropy(p: Tensor, multilabel: bool) -> Tensor:
    if not multilabel:
        return -_sum(torch.xlogy(p, p))
    p = p.clamp_max(1)
    return -_sum(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def _finish_block(
    block: Tensor,
    n_members: int,
    total_weight: float,
    reading: Reading,
    layout: StateLayout,
    finish: Finish,
    box: Box,
) -> None:
    num_classes = layout.num_classes
    inverse = 1.0 / total_weight
    raw = block[:num_classes] * inverse
    if reading.space == "logit":
        raw = _activate(raw, reading.activation == "softmax" and not reading.multilabel)
    p = raw.clamp_min(0)
    finite = raw.isfinite().all(0)
    out_of_range = torch.zeros_like(finite)
    if not reading.from_logits:
        out_of_range = finite & _outside(raw).any(0)
    if finish.normalise:
        p = p / reference_counting.class_sum(p)
        finite &= p.isfinite().all(0)
    valid = finite & ~out_of_range
    spread = _spread(block, raw, n_members, inverse, reading, layout)
    _write_maps(p, valid, spread, reading, finish, box)
    if finish.counting is not None:
        reference_counting.count(
            p, valid, out_of_range, reading, finish.normalise, finish.counting, box
        )


def _spread(
    block: Tensor,
    raw: Tensor,
    n_members: int,
    inverse: float,
    reading: Reading,
    layout: StateLayout,
) -> dict[str, Tensor]:
    """Compute the maps that need more of the state than the mean."""
    maps: dict[str, Tensor] = {}
    if layout.entropy:
        maps["expected_entropy"] = block[layout.entropy_plane] * inverse
    if layout.square:
        square = block[layout.square_plane :][: layout.num_classes] * inverse
        maps["variance"] = _sum((square - raw * raw).clamp_min(0)) / layout.num_classes
    if layout.votes:
        votes = block[layout.votes_plane :][: layout.num_classes]
        if reading.multilabel:
            against = torch.minimum(votes, n_members - votes)
            maps["disagreement"] = _sum(against) / (layout.num_classes * n_members)
        else:
            maps["disagreement"] = 1 - votes.amax(0) / n_members
    return maps


def _write_maps(
    p: Tensor,
    valid: Tensor,
    spread: dict[str, Tensor],
    reading: Reading,
    finish: Finish,
    box: Box,
) -> None:
    wanted = finish.maps
    values = dict(spread)
    if {"entropy", "mutual_information"} & wanted.keys():
        values["entropy"] = _entropy(p, reading.multilabel)
    if "mutual_information" in wanted:
        information = values["entropy"] - values["expected_entropy"]
        values["mutual_information"] = information.clamp_min(0)
    for name in {"entropy", "expected_entropy"} & values.keys():
        # Entropies below 0 are those of probabilities a little beyond 1.
        values[name] = values[name].clamp_min(0)
    if "mean" in wanted:
        values["mean"] = p
    if "confidence" in wanted:
        values["confidence"] = torch.maximum(p, 1 - p) if reading.multilabel else p.amax(0)
    if "label" in wanted:
        values["label"] = (p > 0.5).long() if reading.multilabel else p.argmax(0)
    for name, target in wanted.items():
        kind = MAP_TABLE[name]
        value = values[name].masked_fill(~valid, -1 if kind.integer else math.nan)
        if kind.has_class_axis(reading.multilabel):
            part = target[(*box[: reading.class_dim], slice(None), *box[reading.class_dim :])]
            part = part.movedim(reading.class_dim, 0)
        else:
            part = target[box]
        part.copy_(value.view(part.shape))
