"""The pass of temperature scaling on every implementation: sums, counts, threads."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from engines import on_every_engine
from members import DTYPES, LAYOUTS, arranged, exact, labels, logits, pairwise, probabilities
from torch import Tensor

from fastcal import backends, ops
from fastcal.core.problem import TemperatureLayout

SHAPE = (5, 9, 7)
KINDS = ("softmax", "probabilities", "sigmoid", "sigmoid probabilities", "multilabel")
BERNOULLI = KINDS[2:]
REST = 2.0**-25


def passed(
    values: Tensor,
    target: Tensor,
    b: list[float],
    kind: str = "softmax",
    *,
    mask: Tensor | None = None,
    ignore_index: int | None = None,
    per_class: bool = False,
) -> tuple[list[int], Tensor]:
    """Counts and sums of one pass over ``values`` [B, C, *S]."""
    layout = TemperatureLayout(len(b))
    counts = torch.zeros(layout.COUNTS, dtype=torch.int64)
    sums = torch.zeros(layout.words, dtype=torch.float64)
    multilabel = kind == "multilabel"
    reading = ("probabilities" not in kind, kind in BERNOULLI, multilabel, 2.0**-126, REST)
    target = target.movedim(1, 0) if multilabel else target
    ops.temperature_sums(
        values.movedim(1, 0), target, mask, ignore_index, *reading, b, per_class, counts, sums
    )
    return counts.tolist(), sums


def expected(
    values: Tensor, target: Tensor, kept: Tensor, b: list[float], kind: str
) -> oracle.TemperatureSums:
    number = values.shape[1]
    z = exact(values)
    if "probabilities" in kind:
        exclusive = kind == "probabilities"
        z = oracle.logits_of(z.clip(2.0**-126, 1.0 if exclusive else 1 - REST), exclusive)
    z = np.moveaxis(z, 1, 0).reshape(number, -1)[:, kept.flatten().numpy()]
    if kind == "multilabel":
        y = target.movedim(1, 0).reshape(number, -1)[:, kept.flatten()].numpy()
    else:
        y = (target[kept].numpy() == np.arange(number)[:, None]).astype(int)
    each = np.array(b if len(b) == number else b * number)
    return oracle.temperature_sums(z, y, each, bernoulli=kind in BERNOULLI)


def volume_of(kind: str, number: int, dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor]:
    make = probabilities if "probabilities" in kind else logits
    extra = {"exclusive": kind == "probabilities"} if "probabilities" in kind else {}
    (values,) = make(1, number, SHAPE, dtype=dtype, **extra)
    size = (2, number, *SHAPE) if kind == "multilabel" else (2, *SHAPE)
    return arranged(values, layout), labels(2 if kind == "multilabel" else number, size)


@on_every_engine
@pytest.mark.parametrize(
    ("kind", "number", "dtype", "layout"), pairwise(KINDS, (2, 4, 5, 17), DTYPES, LAYOUTS)
)
def test_sums_match_the_oracle(kind: str, number: int, dtype: torch.dtype, layout: str) -> None:
    values, target = volume_of(kind, number, dtype, layout)
    mask = labels(4, (2, *SHAPE), seed=3) > 0
    ignored = None if kind == "multilabel" else 1
    kept = mask if ignored is None else mask & (target != ignored)
    for b in ([0.7], np.linspace(0.5, 2, number).tolist()):
        per_class = len(b) > 1
        counts, sums = passed(
            *(values, target, b, kind), mask=mask, ignore_index=ignored, per_class=per_class
        )
        found = expected(values, target, kept, b, kind)
        assert counts == [int(kept.sum()), 0, 0]
        layout_ = TemperatureLayout(len(b))
        gradient = found.gradient if per_class else [found.gradient.sum()]
        hessian = found.hessian if per_class else [found.hessian.sum()]
        rel = 1e-12 if dtype == torch.float64 else 1e-6
        scale = kept.sum().item()
        assert float(sums[0]) == pytest.approx(found.loss, rel=rel)
        np.testing.assert_allclose(sums[layout_.gradient], gradient, rtol=rel, atol=rel * scale)
        np.testing.assert_allclose(
            sums[layout_.hessian], np.ravel(hessian), rtol=rel, atol=rel * scale
        )


@on_every_engine
@pytest.mark.parametrize("per_class", [False, True])
def test_loss_of_saturated_voxels_is_not_lost_in_rounding(per_class: bool) -> None:
    z = torch.zeros(1, 3, 4000)
    z[:, 1] = 25.0
    target = torch.ones(1, 4000, dtype=torch.uint8)
    _, sums = passed(z, target, [1.0] * 3 if per_class else [1.0], per_class=per_class)
    assert float(sums[0]) == pytest.approx(4000 * np.log1p(2 * np.exp(-25.0)), rel=1e-5)
    layout = TemperatureLayout(3 if per_class else 1)
    assert float(sums[layout.gradient].sum()) == pytest.approx(-50e3 * 4 * np.exp(-25.0), rel=1e-5)


@on_every_engine
@pytest.mark.parametrize("b", [[0.1], [2.0], [0.1, 2.0, 0.7]])
def test_minus_infinity_is_read_as_the_smallest_probability(b: list[float]) -> None:
    (z,) = logits(1, 3, (40,), batch=1)
    z[0, 1, ::3] = -torch.inf
    finite = z.clone()
    finite[0, 1, ::3] = z[0, :, ::3].amax(0) + float(np.log(2.0**-126))
    target, kept = labels(3, (1, 40)), torch.ones(1, 40, dtype=torch.bool)
    counts, sums = passed(z, target, b, per_class=len(b) == 3)
    found = expected(finite, target, kept, b, "softmax")
    assert counts == [40, 0, 0]
    assert float(sums[0]) == pytest.approx(found.loss, rel=1e-6)
    hessian = found.hessian if len(b) == 3 else found.hessian.sum()
    layout = TemperatureLayout(len(b))
    np.testing.assert_allclose(sums[layout.hessian], np.ravel(hessian), rtol=1e-5, atol=1e-4)


@on_every_engine
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_class", [False, True])
def test_bad_voxels_are_counted_and_left_out(kind: str, per_class: bool) -> None:
    values, target = volume_of(kind, 3, torch.float32, "contiguous")
    b = [0.7] * (3 if per_class else 1)
    clean = values.clone(), target.clone()
    kept = torch.ones(2, *SHAPE, dtype=torch.bool)
    bad = torch.inf if "probabilities" not in kind else 1.5
    values[0, 0, 0, 0, 0] = values[1, 2, 4, 8, 6] = torch.nan
    values[1, 1, 1, 1, 1] = bad
    kept[0, 0, 0, 0] = kept[1, 4, 8, 6] = kept[1, 1, 1, 1] = False
    where = (0, 0, 3, 3, 3) if kind == "multilabel" else (0, 3, 3, 3)
    target[where] = 7
    kept[0, 3, 3, 3] = False
    counts, sums = passed(values, target, b, kind, per_class=per_class)
    assert counts == [int(kept.sum()), 3, 1]
    torch.testing.assert_close(sums, passed(*clean, b, kind, mask=kept, per_class=per_class)[1])


@pytest.mark.parametrize("per_class", [False, True])
def test_any_number_of_threads_gives_the_same_bits(per_class: bool) -> None:
    (z,) = logits(1, 4, (60, 50, 40), batch=1)
    target = labels(4, (1, 60, 50, 40)).to(torch.uint8)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            b = [0.7] * (4 if per_class else 1)
            found.append(passed(z, target, b, per_class=per_class)[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@on_every_engine
def test_volume_without_voxels_adds_nothing() -> None:
    counts, sums = passed(torch.zeros(1, 3, 0, 4), torch.zeros(1, 0, 4, dtype=torch.int64), [1.0])
    assert counts == [0, 0, 0]
    assert sums.tolist() == [0, 0, 0]


def test_backend_without_the_function_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setitem(backends._loaded, "cpu", object())
    assert hasattr(backends.select(cpu, op="temperature_sums"), "temperature_sums")
    monkeypatch.setitem(backends._loaded, "cuda", object())
    monkeypatch.setitem(backends._DEVICES, "cuda", ("cpu",))
    with (
        backends.backend("cuda"),
        pytest.raises(ValueError, match="must be one with temperature_sums"),
    ):
        backends.select(cpu, op="temperature_sums")
