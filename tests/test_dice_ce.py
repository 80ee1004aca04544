"""Dice with cross entropy against MONAI's, and the ways training calls it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engines import on_every_engine
from torch import Tensor

from fastcal.losses import DiceCELoss, DiceLoss, HardL1ACELoss, SoftL1ACELoss, WeightedCrossEntropy

WEIGHT = [0.5, 2.0, 3.0]


def problem(*extents: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = extents or (6, 5)
    z = 2 * torch.randn(2, classes, *shape, generator=generator, dtype=torch.float64)
    target = torch.randint(0, max(classes, 2), (2, *shape), generator=generator)
    target[0][target[0] == 2] = 0  # a class that the first image lacks
    return z.requires_grad_(), target


# Our options, and MONAI's where they differ.
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"include_background": False, "batch": True}, {}),
    ({"weight": WEIGHT, "squared_pred": True, "lambda_dice": 0.3, "lambda_ce": 2.0}, {}),
    ({"weight": WEIGHT, "include_background": False, "jaccard": True}, {}),
    ({"smooth_nr": 0.0, "smooth_dr": 1e-3, "label_smoothing": 0.2, "weight": WEIGHT}, {}),
    ({"reduction": "sum", "batch": True, "label_smoothing": 0.1}, {}),
    ({"head": "sigmoid", "ce_head": "softmax", "weight": WEIGHT}, {"sigmoid": True}),
]


def monais(ours: dict[str, Any], theirs: dict[str, Any], z: Tensor, target: Tensor) -> Tensor:
    """MONAI's loss, with a one-hot target made here, because MONAI makes a float32 one."""
    from monai.losses import DiceCELoss as Theirs

    shared = {key: value for key, value in ours.items() if key not in ("head", "ce_head")}
    if "weight" in shared:
        shared["weight"] = torch.tensor(shared["weight"], dtype=torch.float64)
    loss = Theirs(**(theirs or {"softmax": True}), **shared)
    hot = torch.nn.functional.one_hot(target, z.shape[1]).movedim(-1, 1).double()
    ce = loss.ce(z, target[:, None])
    value: Tensor = loss.lambda_dice * loss.dice(z, hot) + loss.lambda_ce * ce
    return value


@on_every_engine
@pytest.mark.parametrize(("ours", "theirs"), CASES, ids=str)
def test_value_and_gradient_equal_monais(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    z, target = problem(4, 5, 3)
    value, expected = DiceCELoss(**ours)(z, target), monais(ours, theirs, z, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, z)
    (expected_gradient,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)


def test_the_call_is_monais_but_for_the_channel_of_the_target() -> None:
    from monai.losses import DiceCELoss as Theirs

    z, target = problem()
    options: dict[str, Any] = {"include_background": False, "lambda_ce": 0.5, "batch": True}
    theirs = Theirs(to_onehot_y=True, softmax=True, **options)(z, target[:, None])
    assert DiceCELoss(**options)(z, target).item() == pytest.approx(theirs.item(), rel=1e-12)


@on_every_engine
def test_one_class_equals_monais_with_its_binary_cross_entropy() -> None:
    from monai.losses import DiceCELoss as Theirs

    z, target = problem(classes=1)
    for weight in (None, [3.0]):
        ours = DiceCELoss(head="sigmoid", weight=weight)
        theirs = Theirs(sigmoid=True, weight=None if weight is None else torch.tensor(weight))
        value, expected = ours(z, target), theirs(z, target[:, None].double())
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        (gradient,) = torch.autograd.grad(value, z)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, z)[0])


@pytest.mark.parametrize("include_background", [True, False])
def test_a_weight_counts_as_in_monai_where_one_dice_channel_is_left(
    include_background: bool,
) -> None:
    from monai.losses import DiceCELoss as Theirs
    from monai.losses import DiceLoss as TheirDice

    z, target = problem(classes=2)
    weight = torch.tensor([0.5, 3.0], dtype=torch.float64)
    for ours, theirs in ((DiceLoss, TheirDice), (DiceCELoss, Theirs)):
        expected = theirs(
            to_onehot_y=True, softmax=True, include_background=include_background, weight=weight
        )(z, target[:, None])
        value = ours(include_background=include_background, weight=weight)(z, target)
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_sigmoids_cross_entropy_is_that_of_every_class() -> None:
    z, target = problem()
    hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    weight = torch.tensor(WEIGHT, dtype=torch.float64).view(3, 1, 1)
    ours = DiceCELoss(head="sigmoid", lambda_dice=0.0, weight=WEIGHT)(z, target)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, hot, pos_weight=weight)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [None, 1, 255])
def test_dice_equals_monais(reduction: str, ignore_index: int | None) -> None:
    from monai.losses import DiceLoss as Theirs

    z, target = problem()
    if ignore_index == 255:
        target[1, 2:4] = 255
    options: dict[str, Any] = {"reduction": reduction, "ignore_index": ignore_index}
    ours = DiceLoss(**options)(z, target)
    theirs = Theirs(to_onehot_y=True, softmax=True, **options)(z, target[:, None])
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("ignore_index", [None, 2])
def test_gradients_equal_finite_differences(head: str, ignore_index: int | None) -> None:
    z, target = problem(3, 2)
    loss = DiceCELoss(head=head, ignore_index=ignore_index, weight=WEIGHT)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), z)


def test_nothing_but_logits_and_target_is_kept_for_the_gradient() -> None:
    """Neither probabilities nor one-hot targets are kept, only what the caller holds anyway."""
    z, target = problem(32, 32)
    held = {z.data_ptr(), target.data_ptr()}
    large: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.numel() >= target.numel() and tensor.data_ptr() not in held:
            large.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for loss in (DiceCELoss(), SoftL1ACELoss(), WeightedCrossEntropy()):
            loss(z, target).backward()
    assert large == []


def test_under_autocast_half_precision_logits_are_computed_in_float32() -> None:
    z, target = problem(8, 8)
    convolution = torch.nn.Conv2d(3, 3, 1)
    loss = DiceCELoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = convolution(z.detach().float())
        value = loss(logits, target)
    assert (logits.dtype, value.dtype) == (torch.bfloat16, torch.float32)
    assert value.item() == pytest.approx(loss(logits.double(), target).item(), rel=1e-6)
    value.backward()
    assert convolution.weight.grad is not None
    assert convolution.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("make", [DiceCELoss, HardL1ACELoss, SoftL1ACELoss])
def test_losses_compile_without_a_graph_break(make: Any) -> None:
    z, target = problem()
    loss = make(ignore_index=2)

    def step(z: Tensor) -> Tensor:
        return loss(2 * z, target)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    value, expected = compiled(z), step(z)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, z)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, z)[0])


@on_every_engine
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_members_are_mapped_in_one_pass_wherever_their_axis_lies(axis: int) -> None:
    z, target = problem()
    members = torch.stack([z.detach(), -z.detach(), 2 * z.detach()], axis)
    for loss in (DiceCELoss(), SoftL1ACELoss(n_bins=5)):
        step = torch.func.grad_and_value(loss)
        gradients, values = torch.func.vmap(step, in_dims=(axis, None))(members, target)
        for m in range(3):
            gradient, value = step(members.select(axis, m), target)
            torch.testing.assert_close(values[m], value, rtol=1e-12, atol=0)
            torch.testing.assert_close(gradients[m], gradient, rtol=1e-10, atol=1e-14)


def test_bad_arguments_are_named() -> None:
    z, target = problem()
    with pytest.raises(ValueError, match=r"lambda_ce must be at least 0, got -1\.0"):
        DiceCELoss(lambda_ce=-1.0)
    with pytest.raises(ValueError, match="ce_head must be 'softmax' or 'sigmoid', got 'none'"):
        DiceCELoss(ce_head="none")
    with pytest.raises(
        ValueError, match="label_smoothing must be 0 for the cross entropy of a sigmoid"
    ):
        DiceCELoss(head="sigmoid", label_smoothing=0.1)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', got 'none'"):
        DiceCELoss(reduction="none")
    with pytest.raises(ValueError, match="head must be 'sigmoid' for logits of one class"):
        DiceCELoss()(z[:, :1], target)
    with pytest.raises(TypeError, match=r"logits must be floating-point numbers, got torch\.int64"):
        DiceLoss()(z.long(), target)
    with pytest.raises(ValueError, match="weight must hold one number per class: 3, got 2"):
        DiceCELoss(weight=[1.0, 1.0])(z, target)
