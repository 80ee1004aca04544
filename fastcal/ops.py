"""The one list of ops: schemas, fakes, and the hand-over to the selected backend.

Every op writes into tensors that its caller allocated and returns nothing. So the fakes are empty,
``out=`` needs no second op, and nothing below this floor allocates results.

An op takes tensors and scalars. The structs of `fastcal.core.problem` know their own part of the
arguments: a caller passes ``*reading.flatten()``, and an implementation unflattens at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fastcal import backends
from fastcal.core.op_arguments import schema_of
from fastcal.core.problem import (
    FINISH_SCHEMA,
    Finish,
    GapBins,
    LossReading,
    Reading,
    StateLayout,
    SumsWanted,
    TemperatureProblem,
)
from fastcal.core.segment_problem import SegmentProblem

SCHEMAS = (
    f"ensemble_statistics(Tensor[] members, float[] weights, float[] temperatures, "
    f"{schema_of(Reading)}, {FINISH_SCHEMA}) -> ()",
    f"ensemble_accumulate(Tensor member, float weight, float temperature, {schema_of(Reading)}, "
    f"{StateLayout.schema()}, Tensor(a!) state) -> ()",
    f"ensemble_finalize(Tensor state, int n_members, float total_weight, {schema_of(Reading)}, "
    f"{StateLayout.schema()}, {FINISH_SCHEMA}) -> ()",
    f"temperature_sums({TemperatureProblem.schema()}, float[] inverse_temperatures, "
    "bool per_class, Tensor(a!) counts, Tensor(b!) sums) -> ()",
    f"class_sums(Tensor logits, Tensor target, {LossReading.schema()}, {SumsWanted.schema()}, "
    "Tensor(a!) sums) -> ()",
    f"class_gradient(Tensor logits, Tensor target, {LossReading.schema()}, {SumsWanted.schema()}, "
    "Tensor factors, Tensor(a!) gradient) -> ()",
    f"bin_gaps(Tensor logits, Tensor target, {LossReading.schema()}, {GapBins.schema()}, "
    "Tensor(a!) sums) -> ()",
    f"bin_gradient(Tensor logits, Tensor target, {LossReading.schema()}, {GapBins.schema()}, "
    "Tensor factors, Tensor(a!) gradient) -> ()",
    f"segment_sums({SegmentProblem.schema()}, Tensor(a!) sums) -> ()",
)

_library = torch.library.Library("fastcal", "DEF")  # type: ignore[no-untyped-call]

_READING, _LAYOUT, _LOSS = len(Reading._fields), StateLayout.width(), LossReading.width()

# Few layouts occur in a process, and building one takes longer than looking it up.
_layout = lru_cache(maxsize=64)(StateLayout.unflatten)


def _ensemble_statistics(
    members: list[Tensor], weights: list[float], temperatures: list[float], *flat: Any
) -> None:
    backends.call(
        "ensemble_statistics",
        members[0].device,
        members,
        weights,
        temperatures,
        Reading(*flat[:_READING]),
        Finish.unflatten(flat[_READING:]),
    )


def _ensemble_accumulate(member: Tensor, weight: float, temperature: float, *flat: Any) -> None:
    *_, state = flat
    backends.call(
        "ensemble_accumulate",
        member.device,
        member,
        weight,
        temperature,
        Reading(*flat[:_READING]),
        _layout(flat[_READING:-1]),
        state,
    )


def _ensemble_finalize(state: Tensor, n_members: int, total_weight: float, *flat: Any) -> None:
    finish = _READING + _LAYOUT
    backends.call(
        "ensemble_finalize",
        state.device,
        state,
        n_members,
        total_weight,
        Reading(*flat[:_READING]),
        _layout(flat[_READING:finish]),
        Finish.unflatten(flat[finish:]),
    )


def _temperature_sums(*flat: Any) -> None:
    *arguments, inverse_temperatures, per_class, counts, sums = flat
    problem = TemperatureProblem.unflatten(tuple(arguments))
    backends.call(
        "temperature_sums",
        problem.values.device,
        problem,
        inverse_temperatures,
        per_class,
        counts,
        sums,
    )


def _class_sums(logits: Tensor, target: Tensor, *flat: Any) -> None:
    *_, sums = flat
    reading, wanted = LossReading.unflatten(flat[:_LOSS]), SumsWanted.unflatten(flat[_LOSS:-1])
    backends.call("class_sums", logits.device, logits, target, reading, wanted, sums)


def _class_gradient(logits: Tensor, target: Tensor, *flat: Any) -> None:
    *_, factors, gradient = flat
    reading, wanted = LossReading.unflatten(flat[:_LOSS]), SumsWanted.unflatten(flat[_LOSS:-2])
    backends.call(
        "class_gradient",
        logits.device,
        logits,
        target,
        reading,
        wanted,
        factors.contiguous(),
        gradient,
    )


def _bin_gaps(logits: Tensor, target: Tensor, *flat: Any) -> None:
    *_, sums = flat
    reading, bins = LossReading.unflatten(flat[:_LOSS]), GapBins.unflatten(flat[_LOSS:-1])
    backends.call("bin_gaps", logits.device, logits, target, reading, bins, sums)


def _bin_gradient(logits: Tensor, target: Tensor, *flat: Any) -> None:
    *_, factors, gradient = flat
    reading, bins = LossReading.unflatten(flat[:_LOSS]), GapBins.unflatten(flat[_LOSS:-2])
    backends.call(
        "bin_gradient", logits.device, logits, target, reading, bins, factors.contiguous(), gradient
    )


def _segment_sums(*flat: Any) -> None:
    *arguments, sums = flat
    problem = SegmentProblem.unflatten(tuple(arguments))
    backends.call("segment_sums", problem.mean.device, problem, sums)


_IMPLEMENTATIONS = (
    _ensemble_statistics,
    _ensemble_accumulate,
    _ensemble_finalize,
    _temperature_sums,
    _class_sums,
    _class_gradient,
    _bin_gaps,
    _bin_gradient,
    _segment_sums,
)


def _not_mapped(*_: object) -> None:
    raise NotImplementedError(
        "torch.func.vmap must not be applied to fastcal, whose calls take whole batches: pass the "
        "batch itself, or fold the mapped axis into the batch axis and unfold the result"
    )


for _schema, _implementation in zip(SCHEMAS, _IMPLEMENTATIONS, strict=True):
    _name = _schema.partition("(")[0]
    _library.define(_schema)  # type: ignore[no-untyped-call]
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _implementation, _key)  # type: ignore[no-untyped-call]
    _library.impl(_name, _not_mapped, "FuncTorchBatched")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"fastcal::{_name}", lambda *_: None, lib=_library)

ensemble_statistics = torch.ops.fastcal.ensemble_statistics.default
ensemble_accumulate = torch.ops.fastcal.ensemble_accumulate.default
ensemble_finalize = torch.ops.fastcal.ensemble_finalize.default
temperature_sums = torch.ops.fastcal.temperature_sums.default
class_sums = torch.ops.fastcal.class_sums.default
class_gradient = torch.ops.fastcal.class_gradient.default
bin_gaps = torch.ops.fastcal.bin_gaps.default
bin_gradient = torch.ops.fastcal.bin_gradient.default
segment_sums = torch.ops.fastcal.segment_sums.default
