"""The fused passes of the losses: sums against the oracle, gradients, layouts, threads."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import oracle
import pytest
import torch
from engines import Engine, on_every_engine
from members import arranged, exact, labels, logits
from torch import Tensor

import fastcal
from fastcal import ops
from fastcal.losses.sums import BinGaps, ClassSums, bin_gaps, class_sums

ALL = {"overlaps": True, "likelihood": True, "rest": True}


def problem(
    classes: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64, layout: str = ""
) -> tuple[Tensor, Tensor]:
    (z,) = logits(1, classes, shape, dtype=dtype)
    target = labels(max(classes, 2), (2, *shape))
    target[target == 1] = labels(2, target.shape, seed=3)[target == 1]
    return arranged(z, layout), target


def stacked(sums: ClassSums) -> np.ndarray:
    return torch.stack(sums[:6], 1).detach().numpy()


@on_every_engine
@pytest.mark.parametrize(
    ("head", "classes"),
    [*(("softmax", n) for n in (2, 3, 4, 8, 11)), *(("sigmoid", n) for n in (1, 2, 5))],
)
def test_sums_equal_the_formulas(head: str, classes: int) -> None:
    z, target = problem(classes, (7, 23))
    for ignore in (None, 1):
        expected = oracle.loss_sums(exact(z), target.numpy(), head, ignore)
        got = stacked(class_sums(z, target, head=head, ignore_index=ignore, **ALL))
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
        single = stacked(class_sums(z.float(), target, head=head, ignore_index=ignore, **ALL))
        from_single = oracle.loss_sums(exact(z.float()), target.numpy(), head, ignore)
        np.testing.assert_allclose(single, from_single, rtol=2e-6, atol=2e-6)


@on_every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped", "strided"])
def test_layouts_and_types_are_read_and_written_where_they_lie(
    dtype: torch.dtype, layout: str
) -> None:
    z, target = problem(4, (5, 6, 7), dtype, layout)
    z.requires_grad_()
    sums = class_sums(
        z, arranged(target[:, None], layout)[:, 0].to(torch.uint8), head="softmax", **ALL
    )
    expected = oracle.loss_sums(exact(z.detach()), target.numpy(), "softmax", None)
    np.testing.assert_allclose(stacked(sums), expected, rtol=2e-6)
    wide = z.detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(value_of(sums), z)
    (same,) = torch.autograd.grad(value_of(class_sums(wide, target, head="softmax", **ALL)), wide)
    assert gradient.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}[dtype]
    torch.testing.assert_close(gradient.double(), same, rtol=tolerance, atol=tolerance)
    if layout == "channels_last":
        assert gradient.stride() == z.stride()


def value_of(sums: ClassSums | BinGaps) -> Tensor:
    """A smooth function in which every sum has another weight."""
    total = torch.zeros((), dtype=torch.float64)
    for row, values in enumerate(sums):
        if values.requires_grad:
            weights = torch.linspace(0.3, 1.1, values.numel(), dtype=torch.float64)
            means = weights.view(values.shape) * values / 50
            total = total + ((row + 1) * means).sin().sum()
    return total


@on_every_engine
@pytest.mark.parametrize("classes", [1, 3, 9])
@pytest.mark.parametrize("wanted", [{"overlaps": True}, {"likelihood": True}, ALL], ids=str)
def test_gradients_equal_finite_differences(classes: int, wanted: dict[str, bool]) -> None:
    z, target = problem(classes, (3, 2))
    for head in ("sigmoid",) if classes == 1 else ("softmax", "sigmoid"):
        options = {"head": head, "ignore_index": 0 if classes == 3 else None, **wanted}

        def value(z: Tensor, options: dict[str, object] = options) -> Tensor:
            return value_of(class_sums(z, target, **options))

        assert torch.autograd.gradcheck(value, z.clone().requires_grad_())


# --- bins -----------------------------------------------------------------------------------------


@on_every_engine
@pytest.mark.parametrize("n_bins", [1, 7, 20, 100])
@pytest.mark.parametrize("soft", [False, True])
def test_gaps_equal_the_formulas(n_bins: int, soft: bool) -> None:
    z, target = problem(3, (5, 21))
    p = oracle.softmax(exact(z))
    got = bin_gaps(z, target, head="softmax", n_bins=n_bins, soft=soft, ignore_index=2)
    kept = target.numpy() != 2
    for image, k in ((0, 0), (1, 1), (1, 2)):
        where = kept[image]
        own = (target[image].numpy() == k)[where]
        gaps, amounts = oracle.bin_gaps(p[image, k][where], own, n_bins, soft)
        np.testing.assert_allclose(got.gap[image, k], gaps, atol=1e-11)
        np.testing.assert_allclose(got.amount[image, k], amounts, atol=1e-11)
        assert got.reference[image, k] == own.sum()
    single = bin_gaps(z.float(), target, head="softmax", n_bins=n_bins, soft=soft, ignore_index=2)
    torch.testing.assert_close(single.amount, got.amount, rtol=0, atol=2e-4)
    torch.testing.assert_close(single.gap, got.gap, rtol=0, atol=2e-4)


@on_every_engine
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_of_gaps_equal_finite_differences(soft: bool) -> None:
    z, target = problem(3, (4, 2))
    for head in ("softmax", "sigmoid"):
        options = {"head": head, "n_bins": 6, "soft": soft, "ignore_index": 0}

        def value(z: Tensor, options: dict[str, object] = options) -> Tensor:
            sums = bin_gaps(z, target, **options)
            amounts = sums.amount if soft else sums.amount.detach()
            return value_of(BinGaps(sums.gap, amounts, sums.reference.detach()))

        assert torch.autograd.gradcheck(value, z.clone().requires_grad_())


@on_every_engine
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_gradients_are_those_of_the_reference(head: str) -> None:
    z, target = problem(3, (2, 7, 5))
    found = []
    for backend in (None, "reference"):
        with nullcontext() if backend is None else fastcal.backend(backend):
            sums = class_sums(z.requires_grad_(), target, head=head, ignore_index=1, **ALL)
            (gradient,) = torch.autograd.grad(value_of(sums), z)
            found.append(gradient)
            for soft in (False, True):
                gaps = bin_gaps(z, target, head=head, n_bins=6, soft=soft, ignore_index=1)
                found.append(torch.autograd.grad(value_of(gaps), z)[0])
    for got, expected in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@on_every_engine
def test_gradients_in_float32_follow_those_in_float64() -> None:
    z, target = problem(4, (9, 17))
    for soft in (False, True):
        found = []
        for real in (z.clone(), z.float()):
            real.requires_grad_()
            sums = bin_gaps(real, target, head="softmax", n_bins=15, soft=soft)
            found.append(torch.autograd.grad(value_of(BinGaps(sums.gap, *sums[1:])), real)[0])
        torch.testing.assert_close(found[1].double(), found[0], rtol=1e-3, atol=2e-4)


# --- what all have in common ----------------------------------------------------------------------


@on_every_engine
def test_invalid_logits_make_the_sums_nan_and_ignored_ones_do_not() -> None:
    z, target = problem(3, (4, 5), torch.float32)
    z[0, 1, 0, 0] = math.nan
    for fill in (math.nan, math.inf):
        z[0, 1, 0, 0] = fill
        assert stacked(class_sums(z, target, head="softmax", **ALL))[0, :3].size
        assert np.isnan(stacked(class_sums(z, target, head="softmax", **ALL))[0, 1]).all()
        assert bin_gaps(z, target, head="softmax", n_bins=5, soft=True).gap.isnan().any()
        ignored = target.clone()
        ignored[0, 0, 0] = 255
        z.requires_grad_()
        sums = class_sums(z, ignored, head="softmax", ignore_index=255, **ALL)
        soft = bin_gaps(z, ignored, head="softmax", n_bins=5, soft=True, ignore_index=255)
        assert np.isfinite(stacked(sums)).all()
        (gradient,) = torch.autograd.grad(value_of(sums) + value_of(soft), z)
        assert gradient.isfinite().all()
        assert not gradient[0, :, 0, 0].any()
        z = z.detach()


@on_every_engine
def test_minus_infinity_is_a_probability_of_zero() -> None:
    z, target = problem(3, (4, 5))
    z[:, 2] = -math.inf
    target[target == 2] = 0
    got = class_sums(z, target, head="softmax", overlaps=True, likelihood=True)
    two = class_sums(z[:, :2], target, head="softmax", overlaps=True, likelihood=True)
    torch.testing.assert_close(got.nll[:, :2], two.nll, rtol=1e-12, atol=0)
    assert not got.predicted[:, 2].any()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16])
def test_targets_that_are_no_class_are_refused(dtype: torch.dtype, engine: Engine) -> None:
    z, target = problem(3, (4, 5))
    target[1, 2, 3] = 7
    if engine.backend == "triton":  # to raise would wait for the device
        sums = class_sums(z, target.to(dtype), head="softmax", likelihood=True)
        assert sums.nll[1].isnan().all()
        assert sums.nll[0].isfinite().all()
        assert bin_gaps(z, target, head="softmax", n_bins=3, soft=True).gap[1].isnan().any()
        return
    with pytest.raises(ValueError, match=r"target must hold 0 to 2 .*, got the value 7"):
        class_sums(z, target.to(dtype), head="softmax", overlaps=True)
    target[0, 0, 0] = -1
    with pytest.raises(ValueError, match=r"target must hold 0 to \d .*, got 2 other values"):
        bin_gaps(z, target.to(dtype), head="softmax", n_bins=3, soft=False)
    class_sums(z, target.masked_fill(target == 7, -1), head="softmax", ignore_index=-1)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    z, target = problem(4, (41, 40, 39), torch.float32)
    z.requires_grad_()
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        sums = class_sums(z, target, head="softmax", **ALL)
        gaps = bin_gaps(z, target, head="softmax", n_bins=20, soft=True)
        (gradient,) = torch.autograd.grad(value_of(sums) + value_of(gaps), z)
        results.append((*sums, *gaps, gradient))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_sums_of_equal_voxels_do_not_drift() -> None:
    """p = 0.7 in a million voxels: rounding the same way each time, float32 sums err by 1e-4."""
    z = torch.logit(torch.tensor(0.7)).expand(1, 1, 2**20)
    sums = class_sums(z, torch.ones(1, 2**20, dtype=torch.uint8), head="sigmoid", overlaps=True)
    assert sums.predicted.item() / 2**20 == pytest.approx(0.7, rel=4e-7)  # that of one e^x


def test_empty_batches_have_empty_sums() -> None:
    z = torch.zeros(0, 3, 4, requires_grad=True)
    sums = class_sums(z, torch.zeros(0, 4, dtype=torch.int64), head="softmax", overlaps=True)
    assert sums.overlap.shape == (0, 3)
    sums.overlap.sum().backward()
    assert z.grad is not None


def test_the_gradient_has_none_of_its_own() -> None:
    z, target = problem(3, (4, 5))
    z.requires_grad_()
    sums = class_sums(z, target, head="softmax", overlaps=True)
    (gradient,) = torch.autograd.grad(sums.overlap.sum(), z, create_graph=True)
    with pytest.raises(NotImplementedError, match="once, not twice"):
        gradient.sum().backward()


def arguments(op: object) -> tuple[object, ...]:
    z, target = (it.unsqueeze(0) for it in problem(3, (4, 5), torch.float32))
    sums, gaps = (torch.ones(1, 2, *it, dtype=torch.float64) for it in ((6, 3), (3, 11)))
    shared = (z, target, "softmax", None)
    return {
        ops.class_sums: (*shared, True, True, True, sums),
        ops.class_gradient: (*shared, True, True, True, sums, torch.empty_like(z)),
        ops.bin_gaps: (*shared, 5, True, gaps),
        ops.bin_gradient: (*shared, 5, True, gaps, torch.empty_like(z)),
    }[op]


@on_every_engine
@pytest.mark.parametrize(
    "op", [ops.class_sums, ops.class_gradient, ops.bin_gaps, ops.bin_gradient], ids=str
)
def test_opcheck_passes(op: object) -> None:
    torch.library.opcheck(op, arguments(op))
