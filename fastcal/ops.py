"""The one list of ops: schemas, fakes, and the hand-over to the selected backend.

Every op writes into tensors its caller allocated and returns nothing, so that the fakes are empty,
``out=`` needs no second op, and nothing below this floor allocates results.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastcal import backends
from fastcal.core.problem import (
    Counting,
    Extras,
    Finish,
    GapBins,
    LossReading,
    Reading,
    StateLayout,
    SumsWanted,
    TemperatureProblem,
)

_READING = "int class_dim, bool from_logits, str activation, bool multilabel, str space"
_FINISH = (
    "str[] map_names, Tensor(a!)[] maps, bool normalise, Tensor? target, Tensor? mask, "
    "int? ignore_index, Tensor? thresholds, bool left_closed, str calibration, float eps, "
    "Tensor(b!)? statistics, Tensor? regions=None, int n_regions=0, bool moments=False, "
    "int fine_bins=0, int entropy_bins=0"
)
_LOSS = "Tensor logits, Tensor target, str head, int? ignore_index"
_SUMS = "bool overlaps, bool likelihood, bool rest"
_BINS = "int n_bins, bool soft"
SCHEMAS = (
    f"ensemble_statistics(Tensor[] members, float[] weights, float[] temperatures, "
    f"{_READING}, {_FINISH}) -> ()",
    f"ensemble_accumulate(Tensor member, float weight, float temperature, {_READING}, "
    "bool entropy, bool square, bool votes, Tensor(a!) state) -> ()",
    f"ensemble_finalize(Tensor state, int num_classes, int n_members, float total_weight, "
    f"bool entropy, bool square, bool votes, {_READING}, {_FINISH}) -> ()",
    "temperature_sums(Tensor values, Tensor target, Tensor? mask, int? ignore_index, "
    "bool from_logits, bool bernoulli, bool multilabel, float tiny, float rest, "
    "float[] inverse_temperatures, bool per_class, Tensor(a!) counts, Tensor(b!) sums) -> ()",
    f"class_sums({_LOSS}, {_SUMS}, Tensor(a!) sums) -> ()",
    f"class_gradient({_LOSS}, {_SUMS}, Tensor factors, Tensor(a!) gradient) -> ()",
    f"bin_gaps({_LOSS}, {_BINS}, Tensor(a!) sums) -> ()",
    f"bin_gradient({_LOSS}, {_BINS}, Tensor factors, Tensor(a!) gradient) -> ()",
)

_library = torch.library.Library("fastcal", "DEF")  # type: ignore[no-untyped-call]


def _finish(
    map_names: list[str],
    maps: list[Tensor],
    normalise: bool,
    target: Tensor | None,
    mask: Tensor | None,
    ignore_index: int | None,
    thresholds: Tensor | None,
    left_closed: bool,
    calibration: str,
    eps: float,
    statistics: Tensor | None,
    regions: Tensor | None = None,
    n_regions: int = 0,
    moments: bool = False,
    fine_bins: int = 0,
    entropy_bins: int = 0,
) -> Finish:
    counting = None
    if target is not None and thresholds is not None and statistics is not None:
        counting = Counting(
            target,
            mask,
            ignore_index,
            thresholds,
            left_closed,
            calibration,
            eps,
            statistics,
            Extras(moments, fine_bins, entropy_bins),
            regions,
            n_regions,
        )
    return Finish(dict(zip(map_names, maps, strict=True)), normalise, counting)


def _ensemble_statistics(
    members: list[Tensor],
    weights: list[float],
    temperatures: list[float],
    class_dim: int,
    from_logits: bool,
    activation: str,
    multilabel: bool,
    space: str,
    *finish: object,
) -> None:
    reading = Reading(class_dim, from_logits, activation, multilabel, space)
    what = _finish(*finish)  # type: ignore[arg-type]
    backends.select(members[0].device).ensemble_statistics(
        members, weights, temperatures, reading, what
    )


def _ensemble_accumulate(
    member: Tensor,
    weight: float,
    temperature: float,
    class_dim: int,
    from_logits: bool,
    activation: str,
    multilabel: bool,
    space: str,
    entropy: bool,
    square: bool,
    votes: bool,
    state: Tensor,
) -> None:
    reading = Reading(class_dim, from_logits, activation, multilabel, space)
    layout = StateLayout(member.shape[class_dim], entropy, square, votes)
    backends.select(member.device).ensemble_accumulate(
        member, weight, temperature, reading, layout, state
    )


def _ensemble_finalize(
    state: Tensor,
    num_classes: int,
    n_members: int,
    total_weight: float,
    entropy: bool,
    square: bool,
    votes: bool,
    class_dim: int,
    from_logits: bool,
    activation: str,
    multilabel: bool,
    space: str,
    *finish: object,
) -> None:
    reading = Reading(class_dim, from_logits, activation, multilabel, space)
    layout = StateLayout(num_classes, entropy, square, votes)
    what = _finish(*finish)  # type: ignore[arg-type]
    backends.select(state.device).ensemble_finalize(
        state, n_members, total_weight, reading, layout, what
    )


def _temperature_sums(
    values: Tensor,
    target: Tensor,
    mask: Tensor | None,
    ignore_index: int | None,
    from_logits: bool,
    bernoulli: bool,
    multilabel: bool,
    tiny: float,
    rest: float,
    inverse_temperatures: list[float],
    per_class: bool,
    counts: Tensor,
    sums: Tensor,
) -> None:
    problem = TemperatureProblem(
        values, target, mask, ignore_index, from_logits, bernoulli, multilabel, tiny, rest
    )
    backends.select(values.device, op="temperature_sums").temperature_sums(
        problem, inverse_temperatures, per_class, counts, sums
    )


def _class_sums(
    logits: Tensor,
    target: Tensor,
    head: str,
    ignore_index: int | None,
    overlaps: bool,
    likelihood: bool,
    rest: bool,
    sums: Tensor,
) -> None:
    reading = LossReading(head, ignore_index)
    wanted = SumsWanted(overlaps, likelihood, rest)
    backends.select(logits.device, op="class_sums").class_sums(
        logits, target, reading, wanted, sums
    )


def _class_gradient(
    logits: Tensor,
    target: Tensor,
    head: str,
    ignore_index: int | None,
    overlaps: bool,
    likelihood: bool,
    rest: bool,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    reading = LossReading(head, ignore_index)
    wanted = SumsWanted(overlaps, likelihood, rest)
    backends.select(logits.device, op="class_gradient").class_gradient(
        logits, target, reading, wanted, factors.contiguous(), gradient
    )


def _bin_gaps(
    logits: Tensor,
    target: Tensor,
    head: str,
    ignore_index: int | None,
    n_bins: int,
    soft: bool,
    sums: Tensor,
) -> None:
    reading = LossReading(head, ignore_index)
    backends.select(logits.device, op="bin_gaps").bin_gaps(
        logits, target, reading, GapBins(n_bins, soft), sums
    )


def _bin_gradient(
    logits: Tensor,
    target: Tensor,
    head: str,
    ignore_index: int | None,
    n_bins: int,
    soft: bool,
    factors: Tensor,
    gradient: Tensor,
) -> None:
    reading = LossReading(head, ignore_index)
    backends.select(logits.device, op="bin_gradient").bin_gradient(
        logits, target, reading, GapBins(n_bins, soft), factors.contiguous(), gradient
    )


_IMPLEMENTATIONS = (
    _ensemble_statistics,
    _ensemble_accumulate,
    _ensemble_finalize,
    _temperature_sums,
    *(_class_sums, _class_gradient, _bin_gaps, _bin_gradient),
)
for _schema, _implementation in zip(SCHEMAS, _IMPLEMENTATIONS, strict=True):
    _name = _schema.partition("(")[0]
    _library.define(_schema)  # type: ignore[no-untyped-call]
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _implementation, _key)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"fastcal::{_name}", lambda *_: None, lib=_library)

ensemble_statistics = torch.ops.fastcal.ensemble_statistics.default
ensemble_accumulate = torch.ops.fastcal.ensemble_accumulate.default
ensemble_finalize = torch.ops.fastcal.ensemble_finalize.default
temperature_sums = torch.ops.fastcal.temperature_sums.default
class_sums = torch.ops.fastcal.class_sums.default
class_gradient = torch.ops.fastcal.class_gradient.default
bin_gaps = torch.ops.fastcal.bin_gaps.default
bin_gradient = torch.ops.fastcal.bin_gradient.default
